package synth

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

// morphsVersion is part of what kept morphs are found by: whoever changes how they are made
// counts it up.
const morphsVersion = 1

// KeepIn names a folder in which the morphs between the maps are kept, since finding them takes
// minutes. It is called before anything is drawn.
func (m *Maps) KeepIn(folder string) { m.folder = folder }

// keptPath is the file of the morphs between these very maps.
func (m *Maps) keptPath() string {
	h := sha256.New()
	fmt.Fprintln(h, "morphs", morphsVersion, latticeShape)
	for _, l := range m.list {
		h.Write(l.data)
	}
	return filepath.Join(m.folder, fmt.Sprintf("morphs-%x", h.Sum(nil)[:8]))
}

// keptLen is the size of the morphs in bytes: for sixteen maps 330 MB.
func (m *Maps) keptLen() int { return len(m.list) * (len(m.list) - 1) * latticeLen * 12 }

// readKept fills in the morphs of an earlier run; it says whether they were there and whole.
func (m *Maps) readKept(path string) bool {
	file, err := os.ReadFile(path)
	if err != nil || len(file) < sha256.Size {
		return false
	}
	sum, data := file[:sha256.Size], file[sha256.Size:]
	others := len(m.list) - 1
	if got := sha256.Sum256(data); !bytes.Equal(got[:], sum) || len(data) != m.keptLen() {
		return false
	}
	for _, l := range m.list {
		l.morphs = make([][][3]float32, others)
		for j := range l.morphs {
			l.morphs[j] = make([][3]float32, latticeLen)
			n, err := binary.Decode(data, binary.LittleEndian, l.morphs[j])
			if err != nil {
				panic(err) // the length is right
			}
			data = data[n:]
		}
	}
	return true
}

// keep writes the morphs for later runs. Where that fails they are found again.
func (m *Maps) keep(path string) {
	data := make([]byte, 0, m.keptLen())
	for _, l := range m.list {
		for _, v := range l.morphs {
			data, _ = binary.Append(data, binary.LittleEndian, v) // floats have a size
		}
	}
	sum := sha256.Sum256(data)
	f, err := os.CreateTemp(m.folder, ".morphs-*")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	_, first := f.Write(sum[:])
	_, second := f.Write(data)
	if f.Close() == nil && first == nil && second == nil {
		_ = os.Rename(f.Name(), path)
	}
}
