package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/x448/float16"
)

// Weights are the networks that segment a head together, with what is known of
// their errors.
type Weights struct {
	Locate *Model `json:"locate,omitempty"` // sees the whole head in coarse voxels, to place Whole's box; nil leaves that to Whole
	Whole  *Model `json:"whole,omitempty"`  // sees the whole head
	Half   *Model `json:"half,omitempty"`   // sees one half of the brain in finer voxels; nil leaves it to Whole
	Inner  *Model `json:"inner,omitempty"`  // sees the inner structures of one side; nil leaves them to the others

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
	for _, m := range []*Model{w.Locate, w.Whole, w.Half, w.Inner} {
		if m != nil {
			list = append(list, m)
		}
	}
	return list
}

// A weights file is the magic, the length of a JSON header as uint32, the
// header, and the tensors of each network that the header describes, little
// endian. Short tensors are IEEE half precision. Long ones, which only the
// coarse levels have, are signed bytes, 27 of each kernel after its scale in half
// precision.
const (
	weightsMagic = "NSWEIGHTS3\n"
	longTensor   = 100_000
	kernelTaps   = 27
)

// Write writes a weights file.
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
			b.Write(encoded(t))
		}
	}
	_, err = to.Write(b.Bytes())
	return err
}

func encodedLen(t []float32) int {
	if len(t) < longTensor {
		return 2 * len(t)
	}
	return len(t) / kernelTaps * (2 + kernelTaps)
}

func encoded(t []float32) []byte {
	b := make([]byte, 0, encodedLen(t))
	half := func(v float32) float16.Float16 {
		h := float16.Fromfloat32(v)
		b = binary.LittleEndian.AppendUint16(b, h.Bits())
		return h
	}
	if len(t) < longTensor {
		for _, v := range t {
			half(v)
		}
		return b
	}
	for kernel := range slices.Chunk(t, kernelTaps) {
		largest := float32(0)
		for _, v := range kernel {
			largest = max(largest, v, -v)
		}
		scale := half(largest / math.MaxInt8).Float32()
		for _, v := range kernel {
			q := 0.0
			if scale > 0 {
				q = min(max(math.RoundToEven(float64(v/scale)), -math.MaxInt8), math.MaxInt8)
			}
			b = append(b, byte(int8(q)))
		}
	}
	return b
}

// decode fills t from the start of b.
func decode(t []float32, b []byte) {
	half := func() float32 {
		v := float16.Frombits(binary.LittleEndian.Uint16(b)).Float32()
		b = b[2:]
		return v
	}
	if len(t) < longTensor {
		for i := range t {
			t[i] = half()
		}
		return
	}
	for kernel := range slices.Chunk(t, kernelTaps) {
		scale := half()
		for i := range kernel {
			kernel[i] = float32(int8(b[i])) * scale
		}
		b = b[kernelTaps:]
	}
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
		if m.Borders != nil {
			if err := m.Borders.Check(m.Architecture); err != nil {
				return nil, err
			}
		}
		for _, t := range m.tensors() {
			total += encodedLen(t)
		}
	}
	if len(rest) != total {
		return nil, fmt.Errorf("segment: weights file holds %d bytes of weights, its networks need %d", len(rest), total)
	}
	for _, m := range w.models() {
		for _, t := range m.tensors() {
			decode(t, rest)
			rest = rest[encodedLen(t):]
		}
	}
	sum := sha256.Sum256(file)
	w.sha256 = hex.EncodeToString(sum[:])
	return w, nil
}
