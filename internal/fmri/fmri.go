// Package fmri measures 4-D BOLD runs, at rest or under a task: intake, head
// motion and signal quality, cleaning, and what is read from the clean signal.
//
// A run is read once and spooled to an unlinked temporary file; memory holds
// one volume a thread and, later, the frames of brain voxels as float32. Time
// is in seconds and frequency in hertz; places are RAS+ millimetres; voxel
// (i, j, k) of a volume is element i + Shape[0]*(j + Shape[1]*k). Frames are
// counted from the first one that is kept: dummy scans have no number.
//
// All functions give the same result for any number of threads.
package fmri

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// each calls f for 0..n-1 from as many goroutines as there are processors and
// returns the first error, or ctx's.
func each(ctx context.Context, n int, f func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), n) {
		g.Go(func() error {
			for {
				i := int(next.Add(1) - 1)
				if i >= n {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := f(i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// grain is the number of voxels that are taken together. It does not depend on
// the number of threads, so that sums over parts don't either.
const grain = 512

// parts calls f on consecutive parts of 0..n-1, grain long, from all
// processors; p counts the parts.
func parts(n int, f func(p, from, to int)) {
	k := numParts(n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), k) {
		wg.Go(func() {
			for {
				p := int(next.Add(1) - 1)
				if p >= k {
					return
				}
				f(p, p*grain, min(n, (p+1)*grain))
			}
		})
	}
	wg.Wait()
}

func numParts(n int) int { return (n + grain - 1) / grain }

// pool keeps scratch memory for the next caller.
type pool[T any] struct {
	mu   sync.Mutex
	free []T
}

func (p *pool[T]) get(make func() T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		x := p.free[n-1]
		p.free = p.free[:n-1]
		return x
	}
	return make()
}

func (p *pool[T]) put(x T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, x)
}
