package main

import (
	"bytes"
	"os"

	"neuroscreen/internal/segment"
)

// asShipped rounds a model to the half precision of the weights file.
func asShipped(m *segment.Model) (*segment.Model, error) {
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		return nil, err
	}
	return segment.ReadModel(b.Bytes())
}

func writeModel(path string, m *segment.Model) error {
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// readModel reads a weights file; "" is the one built into the program.
func readModel(path string) (*segment.Model, error) {
	if path == "" {
		n, err := segment.Default()
		if err != nil {
			return nil, err
		}
		return n.Model(), nil
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return segment.ReadModel(file)
}
