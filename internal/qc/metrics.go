package qc

import (
	"math"
	"slices"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// Names of the metrics in neuroscreen.QC.Metrics. A metric that an image does
// not offer (no air round a stripped head, say) is absent.
//
// Signals are medians and spreads 1.4826 times the median absolute deviation,
// over voxels whose six neighbours have the same tissue: cerebral white
// matter, cerebral cortex, lateral ventricles.
const (
	SNRWhite = "snr_wm" // signal / spread, as MRIQC's snr
	SNRGrey  = "snr_gm"
	SNRCSF   = "snr_csf"

	// CNR is |white - grey| / sqrt(spread of white^2 + of grey^2 + of air^2)
	// (Magnotta 2006, doi:10.1007/s10278-006-0264-x, as in MRIQC).
	CNR = "cnr"
	// CJV is (spread of white + of grey) / |white - grey| (Ganzetti 2016,
	// doi:10.3389/fninf.2016.00010): noise and bias together.
	CJV = "cjv"
	// EFC is the entropy focus criterion (Atkinson 1997, doi:10.1109/42.650886)
	// over every second voxel along each axis: ghosts and blur spread energy.
	EFC = "efc"
	// FBER is the mean energy of the intracranial voxels over that of air.
	FBER = "fber"
	// SNRDietrich is white signal * sqrt(2/(4-pi)) / spread of air (Dietrich
	// 2007, doi:10.1002/jmri.20969, for the Rayleigh noise of magnitude images).
	SNRDietrich = "snr_dietrich"
	// GhostPercent is the difference of the mean air signal beside the head
	// along one axis and along the other, of the white signal (Giannelli 2010,
	// doi:10.1120/jacmp.v11i4.3237): motion and pulsation ghost along one.
	GhostPercent = "ghost_percent"

	// NoiseToContrast is the noise in white matter over |white - grey|: from
	// the median absolute response of the in-plane Laplacian-difference mask
	// (Immerkaer 1996, doi:10.1006/cviu.1996.0060), blind to slow shading.
	NoiseToContrast = "noise_to_contrast"
	// BiasPercent is the coefficient of variation of white signal over blocks of 24 mm.
	BiasPercent = "bias_percent"
	// BoundaryMM is the width of the edge between cortex and white matter:
	// |white - grey| over the mean slope across their border. Blur widens it.
	BoundaryMM = "boundary_mm"

	// Ratios of signals. The striatum is grey matter that no CSF dilutes.
	WhiteToGrey     = "wm_gm_ratio"
	WhiteToStriatum = "wm_striatum_ratio"
	CSFToGrey       = "csf_gm_ratio"
	// ExtracranialRatio is the volume of bright voxels within 15 mm round the
	// intracranial box, over the intracranial volume: scalp and skull, next to
	// nothing once they are stripped.
	ExtracranialRatio = "extracranial_ratio"

	VoxelMM    = "voxel_mm"   // longest edge
	Anisotropy = "anisotropy" // longest edge over shortest

	Confidence = "confidence" // mean greatest posterior over labelled voxels
	FlipDice   = "flip_dice"  // overlap of the labels of the head and of its mirror image

	EdgeMM2       = "edge_mm2"       // area of brain on the outermost voxels of the image, largest of six faces
	ICVML         = "icv_ml"         //
	BrainFraction = "brain_fraction" // of the intracranial volume, ventricles not counted as brain
)

// tissue groups labels for the metrics.
type tissue uint8

const (
	outside tissue = iota
	otherTissue
	csf      // lateral ventricles
	grey     // cerebral cortex
	striatum // caudate and putamen
	white    // cerebral white matter
)

var tissueOf = func() (t [256]tissue) {
	for _, s := range anatomy.Structures[1:] {
		t[s.Label] = otherTissue
	}
	t[4], t[43] = csf, csf
	t[3], t[42] = grey, grey
	t[11], t[12], t[50], t[51] = striatum, striatum, striatum, striatum
	t[2], t[41] = white, white
	return t
}()

// frame turns voxel axes into right, anterior, superior ones.
type frame struct {
	axis   [3]int     // voxel axis that runs closest to right, anterior, superior
	flip   [3]bool    // that axis runs the other way
	size   [3]float64 // mm along right, anterior, superior
	n      [3]int
	stride [3]int // of the data along right, anterior, superior; negative if flipped
	origin int    // index of the voxel furthest left, back, low
}

func frameOf(g volume.Grid) (f frame) {
	re := g.Affine.ToRAS()
	mm := g.VoxelSize()
	strides := [3]int{1, g.Shape[0], g.Shape[0] * g.Shape[1]}
	for o := range 3 {
		a := re.Axis[o]
		f.axis[o], f.flip[o], f.size[o], f.n[o], f.stride[o] = a, re.Flip[o], mm[a], g.Shape[a], strides[a]
		if re.Flip[o] {
			f.origin += (g.Shape[a] - 1) * strides[a]
			f.stride[o] = -strides[a]
		}
	}
	return f
}

func (f frame) index(p [3]int) int {
	return f.origin + p[0]*f.stride[0] + p[1]*f.stride[1] + p[2]*f.stride[2]
}

// rows calls do with the rows of a box that run to the right, from low to high
// and from back to front: where a row lies, and the index of its leftmost voxel.
func (f frame) rows(box region, do func(anterior, superior, at int)) {
	for z := box[2].lo; z <= box[2].hi; z++ {
		for y := box[1].lo; y <= box[1].hi; y++ {
			do(y, z, f.index([3]int{box[0].lo, y, z}))
		}
	}
}

// whole is the box of all voxels.
func (f frame) whole() (b region) {
	for o := range 3 {
		b[o] = span{0, f.n[o] - 1}
	}
	return b
}

// span of a box along one axis, both ends included.
type span struct{ lo, hi int }

// labelled is what one pass over the labels finds.
type labelled struct {
	voxels [256]int
	sum    [256][3]float64 // of positions along right, anterior, superior, in voxels
	box    region          // of every label
	brain  region          // of every label but CSF outside the ventricles
}

func surveyLabels(data []uint8, f frame) (l labelled) {
	for o := range 3 {
		l.box[o], l.brain[o] = span{f.n[o], -1}, span{f.n[o], -1}
	}
	f.rows(f.whole(), func(y, z, at int) {
		// Whole runs of a label: most of an image has none, or the same for long.
		for x := 0; x < f.n[0]; {
			label, from := data[at], x
			for x < f.n[0] && data[at] == label {
				x++
				at += f.stride[0]
			}
			if label == 0 {
				continue
			}
			n := x - from
			l.voxels[label] += n
			l.sum[label][0] += float64(n * (from + x - 1) / 2)
			l.sum[label][1] += float64(n * y)
			l.sum[label][2] += float64(n * z)
			l.box.add(from, x-1, y, z)
			if label != csfLabel {
				l.brain.add(from, x-1, y, z)
			}
		}
	})
	return l
}

// region is a box of voxels.
type region [3]span

// add makes room for a part of a row.
func (b *region) add(from, to, y, z int) {
	b[0].lo, b[0].hi = min(b[0].lo, from), max(b[0].hi, to)
	b[1].lo, b[1].hi = min(b[1].lo, y), max(b[1].hi, y)
	b[2].lo, b[2].hi = min(b[2].lo, z), max(b[2].hi, z)
}

var csfLabel = uint8(anatomy.Structures[anatomy.CSF].Label)

// signal of one tissue.
type signal struct {
	n              int
	median, spread float64
}

func signalOf(values []float32) signal {
	if len(values) == 0 {
		return signal{}
	}
	m := volume.Percentiles(values, 50)[0]
	off := make([]float32, len(values))
	for i, v := range values {
		off[i] = float32(math.Abs(float64(v - m)))
	}
	return signal{len(values), float64(m), 1.4826 * float64(volume.Percentiles(off, 50)[0])}
}

// minSample is the fewest voxels that a signal is taken from.
const minSample = 50

// tissues samples the three tissues away from their borders; a tissue with
// too few such voxels, thin ventricles mostly, is sampled up to its border.
func tissues(img *volume.Volume, labels *volume.Labels, f frame, l labelled) (inside [white + 1]signal, noise float64) {
	var inner, all [white + 1][]float32
	for label, n := range l.voxels {
		if t := tissueOf[label]; t >= csf {
			inner[t] = slices.Grow(inner[t], n)
		}
	}
	response := make([]float32, 0, cap(inner[white])) // of the noise mask in white matter

	// The mask lies in the plane of the two finest axes.
	u, v := 0, 1
	switch thickest := max(f.size[0], f.size[1], f.size[2]); thickest {
	case f.size[2]:
	case f.size[1]:
		v = 2
	default:
		u, v = 1, 2
	}
	su, sv := f.stride[u], f.stride[v]

	within := l.box // where all neighbours are in the image
	for o := range 3 {
		within[o] = span{max(within[o].lo, 1), min(within[o].hi, f.n[o]-2)}
	}
	i, voxels := img.Data, labels.Data
	f.rows(within, func(_, _, at int) {
		for x := within[0].lo; x <= within[0].hi; x, at = x+1, at+f.stride[0] {
			t := tissueOf[voxels[at]]
			if t < csf {
				continue
			}
			x := i[at]
			if t == csf {
				all[t] = append(all[t], x)
			}
			same := func(offset int) bool { return tissueOf[voxels[at+offset]] == t }
			if !(same(f.stride[0]) && same(-f.stride[0]) && same(f.stride[1]) && same(-f.stride[1]) && same(f.stride[2]) && same(-f.stride[2])) {
				continue
			}
			inner[t] = append(inner[t], x)
			if t == white && same(su+sv) && same(su-sv) && same(-su+sv) && same(-su-sv) {
				response = append(response, float32(math.Abs(float64(
					4*i[at]-2*(i[at+su]+i[at-su]+i[at+sv]+i[at-sv])+i[at+su+sv]+i[at+su-sv]+i[at-su+sv]+i[at-su-sv]))))
			}
		}
	})
	for t := csf; t <= white; t++ {
		values := inner[t]
		if len(values) < minSample && len(all[t]) > len(values) {
			values = all[t]
		}
		inside[t] = signalOf(values)
	}
	if len(response) >= minSample {
		noise = 1.4826 * float64(volume.Percentiles(response, 50)[0]) / 6 // the mask's norm is 6
	} else {
		noise = math.NaN()
	}
	return inside, noise
}

// bias is the coefficient of variation of the median white signal over blocks
// of 24 mm, NaN with fewer than eight of them.
func bias(img *volume.Volume, labels *volume.Labels, f frame, box region) float64 {
	const blockMM, minVoxels = 24.0, 100
	var block [3][]int // of each place along an axis
	for o := range 3 {
		for n := range box[o].hi - box[o].lo + 1 {
			block[o] = append(block[o], int(float64(n)*f.size[o]/blockMM))
		}
	}
	across := 1 + block[0][len(block[0])-1]
	deep := 1 + block[1][len(block[1])-1]
	blocks := make([][]float32, across*deep*(1+block[2][len(block[2])-1]))
	f.rows(box, func(y, z, at int) {
		row := blocks[across*(block[1][y-box[1].lo]+deep*block[2][z-box[2].lo]):][:across]
		for _, b := range block[0] {
			if tissueOf[labels.Data[at]] == white {
				row[b] = append(row[b], img.Data[at])
			}
			at += f.stride[0]
		}
	})
	var n, sum, squares float64
	for _, values := range blocks {
		if len(values) < minVoxels {
			continue
		}
		m := float64(nth(values, len(values)/2))
		n++
		sum += m
		squares += m * m
	}
	if n < 8 {
		return math.NaN()
	}
	mean := sum / n
	return math.Sqrt(max(squares/n-mean*mean, 0)) / math.Abs(mean)
}

// nth returns the value that stands at n once x is sorted, and puts x into
// another order (Hoare's selection).
func nth(x []float32, n int) float32 {
	lo, hi := 0, len(x)-1
	for lo < hi {
		pivot := x[lo+(hi-lo)/2]
		i, j := lo, hi
		for i <= j {
			for x[i] < pivot {
				i++
			}
			for x[j] > pivot {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i++
				j--
			}
		}
		switch {
		case n <= j:
			hi = j
		case n >= i:
			lo = i
		default:
			return x[n]
		}
	}
	return x[n]
}

// slope is the mean change of signal per mm from cortex to neighbouring white
// matter, NaN when they hardly touch.
func slope(img *volume.Volume, labels *volume.Labels, f frame, box region) float64 {
	var sum float64
	n := 0
	data, voxels := img.Data, labels.Data
	f.rows(box, func(y, z, at int) {
		inY, inZ := y < f.n[1]-1, z < f.n[2]-1
		for x := box[0].lo; x <= box[0].hi; x, at = x+1, at+f.stride[0] {
			t := tissueOf[voxels[at]]
			if t != white && t != grey {
				continue
			}
			to := func(o int) {
				next := at + f.stride[o]
				if tissueOf[voxels[next]] != white+grey-t {
					return
				}
				change := float64(data[next]-data[at]) / f.size[o]
				if t == white {
					change = -change
				}
				sum += change
				n++
			}
			if x < f.n[0]-1 {
				to(0)
			}
			if inY {
				to(1)
			}
			if inZ {
				to(2)
			}
		}
	})
	if n < minSample {
		return math.NaN()
	}
	return sum / float64(n)
}

// air holds what lies beside the head, level with the upper half of the
// brain, where there is neither neck nor nose.
type air struct {
	n            int
	mean, spread float64
	energy       float64 // mean square
	ghost        float64 // |mean along one axis - along the other|; NaN unless both have air
}

// besideMM leaves room for skull and scalp round the intracranial box; its
// upper half lies above the ears.
var besideMM = [3]float64{18, 20, 16}

// airOf samples every second voxel along each axis. It reports false when
// there is little air, or air that someone has set to one value.
func airOf(img *volume.Volume, f frame, box region) (a air, ok bool) {
	const minVoxels = 500
	var zones [3][]float32 // beside the head along each axis, level with it along the others
	middle := (box[2].lo + box[2].hi) / 2
	var p [3]int
	for p[2] = middle; p[2] < f.n[2]; p[2] += 2 {
		for p[1] = 0; p[1] < f.n[1]; p[1] += 2 {
			for p[0] = 0; p[0] < f.n[0]; p[0] += 2 {
				zone := -1
				for o := range 3 {
					far := float64(max(box[o].lo-p[o], p[o]-box[o].hi)) * f.size[o]
					switch {
					case far > besideMM[o] && zone == -1:
						zone = o
					case far > 0:
						zone = 3 // near the head, or in a corner
					}
				}
				if zone >= 0 && zone < 3 {
					zones[zone] = append(zones[zone], img.Data[f.index(p)])
				}
			}
		}
	}
	var all []float32
	var mean [3]float64
	for o, z := range zones {
		for _, v := range z {
			mean[o] += float64(v)
			a.energy += float64(v) * float64(v)
		}
		all = append(all, z...)
		mean[o] /= float64(max(len(z), 1))
	}
	a.n = len(all)
	if a.n < minVoxels {
		return a, false
	}
	q := volume.Percentiles(all, 10, 90)
	if q[0] == q[1] {
		return a, false
	}
	a.energy /= float64(a.n)
	s := signalOf(all)
	a.mean, a.spread = s.median, s.spread
	a.ghost = math.NaN()
	if len(zones[0]) >= minVoxels && len(zones[1]) >= minVoxels {
		a.ghost = math.Abs(mean[0] - mean[1])
	}
	return a, true
}

// energyFocus is the entropy focus criterion, 0 for a single bright voxel and
// 1 for even grey, over every second voxel along each axis.
func energyFocus(img *volume.Volume) float64 {
	nx, ny, nz := img.Shape[0], img.Shape[1], img.Shape[2]
	var sum, squares, weighted float64 // of x, x^2 and x ln x
	n := 0
	for z := 0; z < nz; z += 2 {
		for y := 0; y < ny; y += 2 {
			row := img.Data[(z*ny+y)*nx:][:nx]
			for x := 0; x < nx; x += 2 {
				n++
				if v := math.Abs(float64(row[x])); v > 0 {
					sum += v
					squares += v * v
					weighted += v * math.Log(v)
				}
			}
		}
	}
	if squares == 0 {
		return math.NaN()
	}
	// With b = sqrt(sum x^2), sum x/b ln(x/b) = (sum x ln x - ln b sum x)/b.
	b := math.Sqrt(squares)
	most := math.Sqrt(float64(n)) * math.Log(1/math.Sqrt(float64(n)))
	return (weighted - math.Log(b)*sum) / b / most
}

// extracranial is the volume, over that of the labels, of voxels brighter than
// half of grey matter that are not labelled, within 15 mm round the labels'
// box and not below it.
func extracranial(img *volume.Volume, labels *volume.Labels, f frame, l labelled, bright float64) float64 {
	const roundMM = 15
	var from, to [3]int
	for o := range 3 {
		margin := int(roundMM / f.size[o])
		from[o], to[o] = max(0, l.box[o].lo-margin), min(f.n[o]-1, l.box[o].hi+margin)
	}
	from[2] = l.box[2].lo + (l.box[2].hi-l.box[2].lo)/3 // the neck stays on when a head is stripped badly
	out, in := 0, 0
	for z := from[2]; z <= to[2]; z += 2 {
		for y := from[1]; y <= to[1]; y += 2 {
			at := f.index([3]int{from[0], y, z})
			for x := from[0]; x <= to[0]; x += 2 {
				switch {
				case labels.Data[at] != 0:
					in++
				case float64(img.Data[at]) > bright:
					out++
				}
				at += 2 * f.stride[0]
			}
		}
	}
	return float64(out) / float64(max(in, 1))
}

// edgeArea is the largest area, in mm2, of brain on one face of the image. The
// brain stem and CSF run out of the bottom of many whole scans and do not
// count.
func edgeArea(labels *volume.Labels, f frame) float64 {
	var most float64
	for o := range 3 {
		u, v := (o+1)%3, (o+2)%3
		for _, end := range [2]int{0, f.n[o] - 1} {
			n := 0
			var p [3]int
			p[o] = end
			for p[u] = 0; p[u] < f.n[u]; p[u]++ {
				for p[v] = 0; p[v] < f.n[v]; p[v]++ {
					if label := labels.Data[f.index(p)]; label != 0 && label != csfLabel && label != brainStemLabel {
						n++
					}
				}
			}
			most = max(most, float64(n)*f.size[u]*f.size[v])
		}
	}
	return most
}

const brainStemLabel = 16

// labelledEnergy is the mean square of the labelled voxels.
func labelledEnergy(img *volume.Volume, labels *volume.Labels) float64 {
	energy, n := 0.0, 0
	for at, label := range labels.Data {
		if label != 0 {
			v := float64(img.Data[at])
			energy += v * v
			n++
		}
	}
	return energy / float64(max(n, 1))
}
