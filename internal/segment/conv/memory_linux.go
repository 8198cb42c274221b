package conv

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allocate is a variable for tests, which put guard pages around.
var allocate = mapMemory

// mapMemory returns n zeros outside the Go heap on huge pages where the kernel has them: the first
// touch of half a gigabyte in small pages takes longer than a forward pass. The memory goes back
// when release is called.
func mapMemory(n int) (data []float32, release func()) {
	if n < 1<<16 {
		return make([]float32, n), func() {}
	}
	b, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("conv: %d bytes: %v", 4*n, err))
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // a hint: kernels without huge pages refuse it
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n), func() { _ = unix.Munmap(b) }
}
