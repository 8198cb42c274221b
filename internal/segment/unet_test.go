package segment

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"neuroscreen/internal/segment/conv"
)

//go:embed testdata/oracle.bin
var oracle []byte

// noise is the hash of testdata/oracle.py.
func noise(stream, n int, scale, offset float32) []float32 {
	v := make([]float32, n)
	for i := range v {
		h := uint32(uint64(i) + uint64(stream)*0x9E3779B1)
		h ^= h >> 16
		h *= 0x7FEB352D
		h ^= h >> 15
		h *= 0x846CA68B
		h ^= h >> 16
		v[i] = float32(float64(h)/(1<<31)-1)*scale + offset
	}
	return v
}

func noiseModel(a Architecture) *Model {
	m := NewModel(a)
	s := 0
	for i, b := range a.Blocks() {
		m.Weight[i] = noise(s, len(m.Weight[i]), float32(math.Sqrt(3/(27*float64(b.Up+b.In)))), 0)
		m.Bias[i] = noise(s+1, b.Out, 0.1, 0)
		s += 2
	}
	m.HeadW, m.HeadB = noise(s, len(m.HeadW), 1, 0), noise(s+1, len(m.HeadB), 1, 0)
	m.HeadUp = noise(s+2, len(m.HeadUp), 1, 0)
	return m
}

var testArchitecture = Architecture{Inputs: 4, Base: 8, Depth: 4, Shape: [3]int{32, 48, 32}, VoxelMM: 2}

func TestUNetEqualsTorch(t *testing.T) {
	all := make([]float32, len(oracle)/4)
	if err := binary.Read(bytes.NewReader(oracle), binary.LittleEndian, all); err != nil {
		t.Fatal(err)
	}
	for i, of := range []struct {
		wide  int
		below bool
	}{{0, false}, {2, false}, {1, true}} {
		arch, want := testArchitecture, all[i*len(all)/3:][:len(all)/3]
		arch.Wide, arch.Below = of.wide, of.below
		for _, threads := range []int{1, 2} {
			u := NewUNet(noiseModel(arch), threads)
			low, x, err := u.features(context.Background(), noise(1000, arch.Voxels(), 0.5, 0.5))
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, arch.Voxels()*Logits)
			u.engine.Logits(low, x, &u.head, got)
			largest, worst := 0.0, 0.0
			for i, w := range want {
				row, k := i/Logits*97, i%Logits
				largest = max(largest, math.Abs(float64(w)))
				worst = max(worst, math.Abs(float64(w-got[row*Logits+k])))
			}
			if worst > 1e-4*largest {
				t.Errorf("%+v, %d threads, kernel %s: logits differ from torch's by %.2g of the largest, %.3g", of, threads, conv.Kernel(), worst/largest, largest)
			}
		}
	}
}

// TestUNetStopsWithContext: the context is asked before every block, and whenever
// it ends, nothing is classified.
func TestUNetStopsWithContext(t *testing.T) {
	u := NewUNet(noiseModel(testArchitecture), 1)
	image, classes := make([]float32, testArchitecture.Voxels()), make([]Likely, testArchitecture.Voxels())
	blocks := len(testArchitecture.Blocks())
	for before := range blocks + 1 {
		if err := u.Classify(&ending{context.Background(), before}, image, classes); err != context.Canceled {
			t.Errorf("ended before block %d: %v", before, err)
		}
		if classes[0] != (Likely{}) {
			t.Fatalf("ended before block %d: the image was classified", before)
		}
	}
	if err := u.Classify(&ending{context.Background(), blocks + 1}, image, classes); err != nil {
		t.Error(err)
	}
}

// ending is a context that says so many times that it has not ended.
type ending struct {
	context.Context
	times int
}

func (e *ending) Err() error {
	if e.times == 0 {
		return context.Canceled
	}
	e.times--
	return nil
}

func TestWeightsFile(t *testing.T) {
	arch := testArchitecture
	arch.Below = true
	m := noiseModel(arch)
	m.Provenance = Provenance{Seed: 7, Steps: 12, Evaluation: map[string]float64{"dice": .5}}
	m.Borders = NewBorders(arch, 64, 32)
	copy(m.Borders.Weights, noise(77, len(m.Borders.Weights), .05, 0))
	var b bytes.Buffer
	if err := (&Weights{Whole: m}).Write(&b); err != nil {
		t.Fatal(err)
	}
	w, err := ReadWeights(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := w.Whole
	if got.Architecture != m.Architecture || got.Provenance.Seed != 7 || got.Provenance.Evaluation["dice"] != .5 || len(w.SHA256()) != 64 {
		t.Errorf("header came back as %+v", got)
	}
	want := m.tensors()
	long := 0
	for i, v := range got.tensors() {
		for j := range v {
			off := math.Abs(float64(v[j] - want[i][j]))
			bound := 1e-3*math.Abs(float64(want[i][j])) + 1e-6
			if len(v) >= longTensor {
				// Half a step of the kernel's scale, which is rounded itself.
				kernel := want[i][j/kernelTaps*kernelTaps:][:kernelTaps]
				bound = .501 * float64(max(slices.Max(kernel), -slices.Min(kernel))) / 127
				long++
			}
			if off > bound {
				t.Fatalf("tensor %d [%d] = %v, want %v", i, j, v[j], want[i][j])
			}
		}
	}
	if long == 0 {
		t.Error("no long tensor was among them")
	}
	file := b.Bytes()
	for name, bad := range map[string][]byte{
		"empty": nil, "magic": append([]byte("X"), file[1:]...), "cut header": file[:20], "cut weights": file[:len(file)-2], "too long": append(bytes.Clone(file), 0),
	} {
		if _, err := ReadWeights(bad); err == nil {
			t.Errorf("%s: read without error", name)
		}
	}
}

// TestSharedMemory: nets that take turns in one memory compute what each does
// alone.
func TestSharedMemory(t *testing.T) {
	small := testArchitecture
	small.Shape, small.Base, small.Depth = [3]int{24, 16, 40}, 16, 3
	shared := &memory{engine: conv.NewEngine(2)}
	var together, alone []*UNet
	var want [][]Likely
	for _, a := range []Architecture{testArchitecture, small} {
		m := noiseModel(a)
		together, alone = append(together, newUNet(m, shared)), append(alone, NewUNet(m, 2))
		want = append(want, make([]Likely, a.Voxels()))
	}
	run := func(u *UNet, p []Likely) []Likely {
		if err := u.Classify(context.Background(), noise(7, u.arch.Voxels(), 0.5, 0.5), p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for i, u := range alone {
		run(u, want[i])
	}
	for _, i := range []int{0, 1, 1, 0, 1, 0} {
		if got := run(together[i], make([]Likely, len(want[i]))); !slices.Equal(got, want[i]) {
			t.Fatalf("network %d computes something else beside the other", i)
		}
	}
}
