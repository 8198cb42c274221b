package volume

import (
	"runtime"
	"sync"
)

// Parallel calls f on consecutive parts of 0..n-1 from up to threads
// goroutines; 0 threads means GOMAXPROCS. The parts are a few per thread, so
// that uneven ones balance.
func Parallel(threads, n int, f func(from, to int)) {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	if threads = min(threads, n); threads <= 1 {
		if n > 0 {
			f(0, n)
		}
		return
	}
	parts := min(n, 4*threads)
	next := make(chan int, parts)
	for p := range parts {
		next <- p
	}
	close(next)
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for p := range next {
				f(n*p/parts, n*(p+1)/parts)
			}
		})
	}
	wg.Wait()
}
