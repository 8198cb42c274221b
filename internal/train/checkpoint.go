package train

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A checkpoint is one JSON line that says of what run and step it is, then every vector as
// little-endian float32.

// saveCheckpoint writes one atomically.
func saveCheckpoint(path string, header any, vectors [][]float32) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".checkpoint-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	err = json.NewEncoder(w).Encode(header)
	for _, v := range vectors {
		err = errors.Join(err, binary.Write(w, binary.LittleEndian, v))
	}
	if err = errors.Join(err, w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// loadCheckpoint reads header, and then the vectors if check agrees with it.
func loadCheckpoint(path string, header any, vectors [][]float32, check func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	line, err := r.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, header)
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	if err := check(); err != nil {
		return err
	}
	for _, v := range vectors {
		if err := binary.Read(r, binary.LittleEndian, v); err != nil {
			return fmt.Errorf("checkpoint %s is truncated: %w", path, err)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return fmt.Errorf("checkpoint %s has trailing bytes: it is of a run of another shape", path)
	}
	return nil
}
