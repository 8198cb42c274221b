//go:build !amd64 || noasm

package conv

func fastest() *kernelSet { return nil }
