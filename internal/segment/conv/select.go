package conv

import "os"

// active is what NewEngine uses, chosen once. NEUROSCREEN_KERNEL=generic asks for plain Go, the way
// to compare the two on one machine; the build tag noasm leaves the assembly out.
var active = choose(os.Getenv("NEUROSCREEN_KERNEL"))

func choose(wish string) *kernelSet {
	if k := fastest(); k != nil && wish != genericKernels.name {
		return k
	}
	return &genericKernels
}

// Kernel names the implementation in use: "avx2" or "generic".
func Kernel() string { return active.name }
