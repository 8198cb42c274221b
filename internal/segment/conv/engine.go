package conv

import (
	"sync"
	"sync/atomic"
)

// An Engine runs operations on a fixed number of threads and owns their scratch memory. It serves
// one caller at a time.
type Engine struct {
	k       *kernelSet
	workers []*worker
	partial buffer // weight gradients by slab, before they are summed
}

// A worker is the scratch of one goroutine. Argument structs live here because kernels are called
// through variables, which would send each struct to the heap.
type worker struct {
	row     rowArgs
	grad    gradArgs
	upGrad  upGradArgs
	upIn    upInArgs
	upOut   upOutArgs
	tile    tileArgs
	mul     mulArgs
	winoOut winoOutArgs
	outer   outerArgs
	plane   planeArgs
	pool    poolArgs
	softmax softmaxArgs
	loss    lossGradArgs
	head    headGradArgs
	add     addArgs

	ring      buffer // transformed slices
	upRing    buffer // and of an upsampled tensor
	product   [24 * 6 * 2 * lanes]float32
	last      [2 * 4 * lanes]float32 // a tile
	logits    [8*Logits + 80]float32 // of 8 voxels, and what asmgen/posterior.go has beside them
	p, bg     []float32              // posteriors of a row
	below     []float32              // logits of a row at half the resolution,
	belowGrad []float32              // and their gradients
	likely    []uint32
}

// NewEngine returns an engine on threads goroutines, at least one.
func NewEngine(threads int) *Engine { return newEngine(threads, active) }

func newEngine(threads int, k *kernelSet) *Engine {
	e := &Engine{k: k}
	for range max(1, threads) {
		e.workers = append(e.workers, &worker{})
	}
	return e
}

// each calls f for the tasks 0 to n-1, every task once, in no order.
func (e *Engine) each(n int, f func(w *worker, task int)) {
	if len(e.workers) == 1 || n == 1 {
		for i := range n {
			f(e.workers[0], i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, w := range e.workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(w, i)
			}
		})
	}
	wg.Wait()
}

// A buffer is scratch memory that grows to what was asked for and is then kept.
type buffer struct {
	data    []float32
	release func()
}

func (b *buffer) grow(n int) []float32 {
	if len(b.data) < n {
		if b.release != nil {
			b.release()
		}
		b.data, b.release = allocate(n)
	}
	return b.data[:n]
}

// Release returns the engine's scratch memory; the engine stays usable.
func (e *Engine) Release() {
	e.partial.free()
	for i := range e.workers {
		e.workers[i].ring.free()
		e.workers[i].upRing.free()
		e.workers[i] = &worker{}
	}
}

func (b *buffer) free() {
	if b.release != nil {
		b.release()
	}
	b.data, b.release = nil, nil
}

// pieces cuts n into the fewest, nearly equal parts of at most limit.
func pieces(n, limit int) []int {
	k := (n + limit - 1) / limit
	p := make([]int, k)
	for i := range p {
		p[i] = (i+1)*n/k - i*n/k
	}
	return p
}

// A Stats holds two sums per channel, gathered by an operation in parts that are added in a fixed
// order.
type Stats struct {
	parts    []float64 // [part][block][2][8]
	channels int
}

// Sum returns the two sums of channel c: of x and x*x after Conv, of g and g*z after
// AffineGradReduce.
func (s *Stats) Sum(c int) (a, b float64) {
	for i := c / lanes * 2 * lanes; i < len(s.parts); i += s.channels * 2 {
		a += s.parts[i+c%lanes]
		b += s.parts[i+lanes+c%lanes]
	}
	return a, b
}

func (s *Stats) reset(parts, channels int) {
	n := parts * channels * 2
	if cap(s.parts) < n {
		s.parts = make([]float64, n)
	}
	s.parts, s.channels = s.parts[:n], channels
	clear(s.parts)
}

func (s *Stats) part(part, block int) []float64 {
	return s.parts[part*s.channels*2+block*2*lanes:][:2*lanes]
}
