// Package conv holds the tensor operations of the segmentation network, forward and backward, on
// the CPU: 3x3x3 convolution over the concatenation of an upsampled and a full-resolution tensor,
// normalisation with LeakyReLU, max pooling, the softmax head with its losses, and Adam.
//
// Tensors hold their channels in blocks of 8, one vector of 8 floats per voxel, with a border of one
// zero voxel on every side, so that no operation treats edges specially. Convolutions run as
// Winograd F(2x4) in the plane and direct along z where the size allows it, else directly; the
// upsampled part is convolved at low resolution, differences between neighbours with sums of weights:
// 27 products for 8 outputs.
//
// An operation panics on shapes that do not fit together: that is a bug of the caller. Results do
// not depend on the number of threads: tasks are cut by shape alone and sums are taken in a fixed
// order. The kernels, AVX-512, AVX2 and plain Go, differ in rounding, by some 1e-5 of an output's root
// mean square.
package conv

//go:generate go run -C asmgen .
