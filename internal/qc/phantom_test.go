package qc

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// phantom is a head of ellipsoids with every structure that the gates look at,
// on a grid of 2 mm, in mm from the centre of the brain.
type phantom struct {
	labels *volume.Labels
	kind   []uint8 // what each voxel is made of
}

// What the phantom is made of.
const (
	airKind = iota
	scalpKind
	skullKind
	fluidKind
	greyKind
	whiteKind
	kinds
)

// t1 signals by kind.
var t1 = [kinds]float64{0, 160, 15, 30, 80, 110}

var phantomOnce = sync.OnceValue(buildPhantom)

// newPhantom returns a copy of the phantom to change at will.
func newPhantom() phantom {
	p := phantomOnce()
	return phantom{&volume.Labels{Grid: p.labels.Grid, Data: slices.Clone(p.labels.Data)}, p.kind}
}

// buildPhantom lies in the scanner with a margin of air, stored as LAS.
func buildPhantom() phantom {
	g := volume.Grid{
		Shape:  [3]int{112, 128, 100},
		Affine: volume.Affine{{-2, 0, 0, 111}, {0, 2, 0, -127}, {0, 0, 2, -99}, {0, 0, 0, 1}},
	}
	p := phantom{labels: volume.NewLabels(g), kind: make([]uint8, g.Len())}
	// both fills an ellipsoid with centre c and semi-axes r on the left, and its
	// mirror image on the right.
	both := func(left, right, kind uint8, c, r [3]float64) {
		at := g.Affine.Inverse()
		lo, hi := [3]int{}, [3]int{}
		a := at.Apply([3]float64{math.Abs(c[0]) + r[0], c[1] - r[1], c[2] - r[2]})
		b := at.Apply([3]float64{-math.Abs(c[0]) - r[0], c[1] + r[1], c[2] + r[2]})
		for n := range 3 {
			lo[n], hi[n] = int(math.Floor(a[n])), int(math.Ceil(b[n]))
		}
		for k := lo[2]; k <= hi[2]; k++ {
			for j := lo[1]; j <= hi[1]; j++ {
				for i := lo[0]; i <= hi[0]; i++ {
					p0 := g.Affine.Apply([3]float64{float64(i), float64(j), float64(k)})
					label := left
					if p0[0] > 0 {
						label = right
					}
					x := (-math.Abs(p0[0]) - c[0]) / r[0]
					y, z := (p0[1]-c[1])/r[1], (p0[2]-c[2])/r[2]
					if x*x+y*y+z*z <= 1 {
						o := g.Index(i, j, k)
						p.labels.Data[o], p.kind[o] = label, kind
					}
				}
			}
		}
	}
	both(0, 0, scalpKind, [3]float64{0, 0, 0}, [3]float64{82, 96, 80})
	both(0, 0, skullKind, [3]float64{0, 0, 0}, [3]float64{76, 90, 74})
	both(24, 24, fluidKind, [3]float64{0, 0, 0}, [3]float64{70, 84, 68})
	both(3, 42, greyKind, [3]float64{0, 0, 4}, [3]float64{66, 80, 62})
	both(2, 41, whiteKind, [3]float64{0, 0, 4}, [3]float64{54, 68, 50})
	both(8, 47, greyKind, [3]float64{-24, -44, -44}, [3]float64{22, 24, 18})
	both(7, 46, whiteKind, [3]float64{-24, -44, -44}, [3]float64{12, 14, 10})
	both(16, 16, greyKind, [3]float64{0, -20, -44}, [3]float64{12, 14, 24})
	both(28, 60, greyKind, [3]float64{-8, -16, -12}, [3]float64{7, 10, 9})
	both(4, 43, fluidKind, [3]float64{-10, 4, 22}, [3]float64{8, 24, 9})
	both(10, 49, greyKind, [3]float64{-12, -16, 4}, [3]float64{8, 15, 12})
	both(11, 50, greyKind, [3]float64{-14, 22, 8}, [3]float64{7, 14, 9})
	both(12, 51, greyKind, [3]float64{-28, 10, 2}, [3]float64{7, 15, 11})
	both(13, 52, greyKind, [3]float64{-19, 4, -2}, [3]float64{4, 8, 7})
	both(17, 53, greyKind, [3]float64{-27, -22, -14}, [3]float64{8, 17, 7})
	both(18, 54, greyKind, [3]float64{-24, 2, -18}, [3]float64{7, 7, 7})
	return p
}

// image paints the phantom.
func (p phantom) image(signal [kinds]float64) *volume.Volume {
	v := volume.New(p.labels.Grid)
	for i, k := range p.kind {
		v.Data[i] = float32(signal[k])
	}
	return v
}

// stripped removes everything outside the labels.
func (p phantom) stripped(v *volume.Volume) {
	for i, label := range p.labels.Data {
		if label == 0 {
			v.Data[i] = 0
		}
	}
}

func (p phantom) mm3() (mm3 [anatomy.NumClasses]float64) {
	for _, label := range p.labels.Data {
		s, _ := anatomy.ByLabel(int(label))
		mm3[s.Class] += p.labels.VoxelMM3()
	}
	mm3[0] = 0
	return mm3
}

func (p phantom) measured(v *volume.Volume) Measured {
	return Measured{Image: v, Labels: p.labels, MM3: p.mm3(), Confidence: 0.93, FlipDice: 0.95}
}

// addRice adds the noise of a magnitude image.
func addRice(v *volume.Volume, sd float64) {
	r := rand.New(rand.NewPCG(7, 11))
	for i, x := range v.Data {
		v.Data[i] = float32(math.Hypot(float64(x)+sd*r.NormFloat64(), sd*r.NormFloat64()))
	}
}

// addGhost adds a copy shifted by half the field of view along the voxel axis
// that runs from back to front, as motion along the phase axis does.
func addGhost(v *volume.Volume, share float64) {
	clean := slices.Clone(v.Data)
	nj := v.Shape[1]
	for k := range v.Shape[2] {
		for j := range nj {
			for i := range v.Shape[0] {
				v.Data[v.Index(i, j, k)] += float32(share) * clean[v.Index(i, (j+nj/2)%nj, k)]
			}
		}
	}
}

// addBias multiplies by 1 to 1+range from bottom to top.
func addBias(v *volume.Volume, span float64) {
	for k := range v.Shape[2] {
		f := float32(1 + span*float64(k)/float64(v.Shape[2]-1))
		at := k * v.Shape[0] * v.Shape[1]
		for i := range v.Data[at : at+v.Shape[0]*v.Shape[1]] {
			v.Data[at+i] *= f
		}
	}
}
