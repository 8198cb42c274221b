//go:build !amd64 || noasm

package conv

func available() []*kernelSet { return []*kernelSet{&genericKernels} }
