package conv

import "os"

// active is what NewEngine uses, chosen once: the fastest set of kernels, or the one that
// NEUROSCREEN_KERNEL names if this machine can run it, to compare them. The build tag noasm leaves
// the assembly out.
var active = choose(os.Getenv("NEUROSCREEN_KERNEL"))

func choose(wish string) *kernelSet {
	all := available()
	for _, k := range all {
		if k.name == wish {
			return k
		}
	}
	return all[0]
}

// Kernel names the implementation in use: "avx512", "avx2" or "generic".
func Kernel() string { return active.name }
