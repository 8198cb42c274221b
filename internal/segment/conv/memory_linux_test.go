package conv

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded returns n zeros that end (or begin) at a page that faults on any access.
func guarded(t *testing.T, n int, atEnd bool) []float32 {
	t.Helper()
	page := os.Getpagesize()
	size := (4*n + page - 1) / page * page
	b, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	for _, guard := range [][]byte{b[:page], b[page+size:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page
	if atEnd {
		at += size - 4*n
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[at])), n)
}

// TestKernelsStayInsideBuffers puts every tensor, weight, gradient and scratch buffer against a page
// that faults, first at its end, then at its start. The vectors are then also unaligned.
func TestKernelsStayInsideBuffers(t *testing.T) {
	defer func() { allocate = mapMemory }()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		want := runAll(newEngine(1, k), plainFloats)
		for _, atEnd := range []bool{true, false} {
			floats := func(n int) []float32 { return guarded(t, n, atEnd) }
			allocate = func(n int) ([]float32, func()) { return floats(n), func() {} }
			for i, got := range runAll(newEngine(1, k), floats) {
				for j := range got {
					if got[j] != want[i][j] {
						t.Fatalf("result %d, value %d: %g in guarded memory, %g elsewhere", i, j, got[j], want[i][j])
					}
				}
			}
			allocate = mapMemory
		}
	})
}

// TestPosteriorsStayInsideBuffers does so with what holds a row of posteriors, of any length.
func TestPosteriorsStayInsideBuffers(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	eachKernel(t, func(t *testing.T, k *kernelSet) {
		for n := 1; n <= 17; n++ {
			for _, atEnd := range []bool{true, false} {
				floats := func(n int) []float32 { return guarded(t, n, atEnd) }
				likely := floats(n)
				a := softmaxArgs{
					x: floats((n + 7) / 8 * 8 * lanes), w: floats(lanes * Logits), bias: floats(Logits),
					p: floats(n * Logits), background: floats(n), sums: floats(Logits), scratch: floats(len(worker{}.logits)),
					likely: unsafe.Slice((*uint32)(unsafe.Pointer(&likely[0])), n), blocks: 1, n: n,
				}
				k.softmax(&a)
				k.likely(&a)
				for i := range n {
					if a.likely[i] != math.MaxUint32 || a.background[i] < .03 || a.background[i] > .031 || a.p[i*Logits+31] != a.background[i] {
						t.Fatalf("voxel %d of %d: likely %x, background %g, last class %g", i, n, a.likely[i], a.background[i], a.p[i*Logits+31])
					}
				}
				if want := float32(n) / Classes; math.Abs(float64(a.sums[0]/want-1)) > 1e-5 {
					t.Fatalf("%d voxels: a class adds up to %g, want %g", n, a.sums[0], want)
				}
			}
		}
	})
}

func residentBytes(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestMemoryDoesNotGrow(t *testing.T) {
	e := NewEngine(2)
	for range 10 {
		runAll(e, plainFloats)
	}
	before := residentBytes(t)
	for range 40 {
		runAll(e, plainFloats)
	}
	if grown := residentBytes(t) - before; grown > 4<<20 {
		t.Errorf("40 runs grew the process by %d bytes", grown)
	}
	// Scratch is kept, so a run allocates little beyond what the test itself asks for.
	in, out := NewTensor(8, 8, 8, 8), NewTensor(8, 8, 8, 8)
	w := NewWeights(8, 0, 8, make([]float32, MasterLen(8, 0, 8)))
	var st Stats
	run := func() {
		e.Pack(w, 8, 8, 8, true)
		e.Conv(w, nil, in, out, nil, 1, &st)
		e.ConvGradData(w, out, in, nil)
		e.ConvGradWeights(w, nil, in, out, w.Master)
	}
	run()
	if n := testing.AllocsPerRun(20, run); n > 150 {
		t.Errorf("%g allocations a step", n)
	}
}
