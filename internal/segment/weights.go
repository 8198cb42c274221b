package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/x448/float16"
)

// Weights are the networks that segment a head together, with what is known of
// their errors.
type Weights struct {
	Locate *Model `json:"locate,omitempty"` // sees the whole head in coarse voxels, to place Whole's box; nil leaves that to Whole
	Whole  *Model `json:"whole,omitempty"`  // sees the whole head
	Inner  *Model `json:"inner,omitempty"`  // sees the inner structures of one side; nil leaves them to Whole

	// Evaluation is of the networks together, on whole heads of the held-out
	// maps.
	Evaluation map[string]float64 `json:"evaluation,omitempty"`
	// RelativeError is the RMS error of the volume, by structure, over the true
	// volume, on the same heads; Errors predicts it for one head, from degraded
	// ones.
	RelativeError map[string]float64    `json:"relative_error,omitempty"`
	Errors        map[string]ErrorModel `json:"errors,omitempty"`

	sha256 string
}

// SHA256 of the weights file that was read, in hex.
func (w *Weights) SHA256() string { return w.sha256 }

func (w *Weights) models() (list []*Model) {
	for _, m := range []*Model{w.Locate, w.Whole, w.Inner} {
		if m != nil {
			list = append(list, m)
		}
	}
	return list
}

// A weights file is the magic, the length of a JSON header as uint32, the
// header, and the weights of each network that the header describes as IEEE
// half precision, little endian.
const weightsMagic = "NSWEIGHTS2\n"

// Write writes a weights file in half precision.
func (w *Weights) Write(to io.Writer) error {
	head, err := json.Marshal(w)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(weightsMagic)
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(head))))
	b.Write(head)
	for _, m := range w.models() {
		for _, t := range m.tensors() {
			for _, v := range t {
				b.Write(binary.LittleEndian.AppendUint16(nil, float16.Fromfloat32(v).Bits()))
			}
		}
	}
	_, err = to.Write(b.Bytes())
	return err
}

// ReadWeights parses a weights file.
func ReadWeights(file []byte) (*Weights, error) {
	rest, ok := bytes.CutPrefix(file, []byte(weightsMagic))
	if !ok || len(rest) < 4 {
		return nil, fmt.Errorf("segment: not a weights file of this version")
	}
	n := int(binary.LittleEndian.Uint32(rest))
	rest = rest[4:]
	if n > len(rest) {
		return nil, fmt.Errorf("segment: weights file is truncated")
	}
	w := &Weights{}
	if err := json.Unmarshal(rest[:n], w); err != nil {
		return nil, fmt.Errorf("segment: weights header: %w", err)
	}
	rest = rest[n:]
	total := 0
	for _, m := range w.models() {
		if err := m.Architecture.check(); err != nil {
			return nil, err
		}
		if m.Architecture.Inner != (m == w.Inner) {
			return nil, fmt.Errorf("segment: weights header holds a network under another's name")
		}
		for _, t := range m.tensors() {
			total += len(t)
		}
	}
	if len(rest) != 2*total {
		return nil, fmt.Errorf("segment: weights file holds %d bytes of weights, its networks need %d", len(rest), 2*total)
	}
	for _, m := range w.models() {
		for _, t := range m.tensors() {
			for i := range t {
				t[i] = float16.Frombits(binary.LittleEndian.Uint16(rest)).Float32()
				rest = rest[2:]
			}
		}
	}
	sum := sha256.Sum256(file)
	w.sha256 = hex.EncodeToString(sum[:])
	return w, nil
}
