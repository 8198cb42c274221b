package conv

// A kernelSet is one implementation of the innermost loops: assembly (kernels_amd64.s, written by
// asmgen, where each kernel's formula stands) or plain Go (generic.go). Slices start at the
// first element a kernel touches; strides count float32. Values come in vectors of 8 channels. Where
// tasks move along z, kernels ask for the memory one slice on, or two, while they compute.
type kernelSet struct {
	name string

	place   placer // the order of weights and of their gradients
	upPairs int    // most pairs of outputs of upMul

	direct8, direct4, upGrad func(*rowArgs)
	weightGrad               func(*gradArgs)
	upWeightGrad             func(*upGradArgs)

	upIn  func(*upInArgs)
	upMul func(*mulArgs)
	upOut func(*upOutArgs)

	winoIn, winoGradIn func(*tileArgs)
	winoMul            func(*mulArgs)
	winoOut            func(*winoOutArgs)
	winoOuter          func(*outerArgs)

	sums, affine, affineSums, affineGrad func(*planeArgs)
	poolMax, poolGrad                    func(*poolArgs)

	logits, softmax, likely                   func(*softmaxArgs)
	lossGrad                                  func(*lossGradArgs)
	headGradIn, headGradWeights, headGradBias func(*headGradArgs)

	adam  func(*adamArgs)
	add   func(*addArgs)
	leaky func(*leakyArgs)
	peak  func(*peakArgs)
}

// rowArgs: n outputs of a row.
type rowArgs struct {
	in, w, init, out  []float32
	n                 int
	blocks            int // input blocks of 8 channels
	block, slice, row int // strides of in
	initStep          int // from one output's initial value to the next: 0 for a bias, 8 for a row
	slope             float32
}

// gradArgs: n positions of a stream of rows, a multiple of 3.
type gradArgs struct {
	in, dz, acc []float32
	n, channels int
}

// upGradArgs: rows of n low-resolution positions.
type upGradArgs struct {
	low, dz, acc  []float32
	n, rows       int
	lowRow, dzRow int
}

// tileArgs: n Winograd tiles along x. row is the stride of in, pos that between transformed positions.
type tileArgs struct {
	in, out  []float32
	row, pos int
	n        int
	slice    int // of in, for winoIn
}

// upInArgs: rows of n low-resolution positions; slice is the stride of a.
type upInArgs struct {
	a, b, c, d, out []float32
	n, slice        int
}

// mulArgs: v0, v1, v2 are the transformed slices under the three taps along z. upMul makes n pairs of
// outputs, and pos is the stride between rows.
type mulArgs struct {
	v0, v1, v2, v3, w, m []float32
	blocks, n            int
	block, pos, mPos     int
}

// upOutArgs: n pairs of outputs in each of two rows of two slices; row and slice are the strides of out.
type upOutArgs struct {
	m, bias, out     []float32
	mPos, row, slice int
	n                int
}

type winoOutArgs struct {
	m, init, out              []float32
	mPos                      int
	initStep, initRow, outRow int
	outSlice                  int
	n                         int
	slope                     float32
}

type outerArgs struct {
	v, d0, d1, d2, acc []float32
	n, pos             int
}

// planeArgs: rows of width voxels of one block; row is the stride of z, dy and out alike. coef holds
// vectors of 8: scale, shift and for affineGrad a, b, c.
type planeArgs struct {
	z, dy, out, coef []float32
	acc              []float64
	width, rows, row int
	slope            float32
}

// poolArgs: n outputs of a row; row and slice are the strides of in and din.
type poolArgs struct {
	in, out, din, dout []float32
	row, slice, n      int
}

// softmaxArgs: sums are softmax's, likely and least likely's; scratch is for 8 voxels; biasStep goes
// from the bias of two voxels to that of the next two, and is 0 where all have the same.
type softmaxArgs struct {
	x, w, bias, p, background, sums []float32
	scratch                         []float32
	likely                          []uint32
	least                           float32
	blocks, block, biasStep, n      int
}

type lossGradArgs struct {
	p, background, c, e, w []float32
	labels                 []uint8
	n                      int
}

type headGradArgs struct {
	dl, w, x, out []float32
	n             int
}

type adamArgs struct {
	p, g, m, v                                         []float32
	n                                                  int
	keep, beta1, rest1, beta2, rest2, step, eps, scale float32
}

// leakyArgs: n voxels of 32 channels; block goes from 8 channels in dst to the next.
type leakyArgs struct {
	src, dst []float32
	slope    float32
	block, n int
}

type addArgs struct {
	dst, src []float32
	n        int
}

// peakArgs: n rounds of peakRound multiply-adds that wait for nothing.
type peakArgs struct{ n int }
