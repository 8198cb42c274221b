package fmri

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// What a run's place in MNI space rests on.
const (
	PlaceFromRun = "run" // the labels of its own mean image
	PlaceFromT1  = "t1"  // those of the subject's T1
)

// Stable codes of a run's place.
const (
	PlaceUnknown = "place-unknown" // nothing that needs MNI space is given
	T1Unused     = "t1-unused"     // the subject's T1 doesn't fit the run
)

// Limits of a fit to landmarks.
const (
	farMM          = 8.0  // a landmark that is further off takes no part
	maxResidualMM  = 4.0  // root mean square of the others
	minLandmarks   = 10   // that take part
	minOfSide      = 4    // and of each side
	minMarkShare   = 0.75 // of those that are whole
	minScale       = 0.75 // of a head to MNI, in any direction
	maxScale       = 1.5
	robustMM       = 3.0 // from here on a landmark counts less and less
	robustRounds   = 30
	minMarkVoxels  = 5
	landmarkRounds = 3 // of leaving out
)

// StoredT1 is a T1-weighted scan of the same subject that was analysed before.
type StoredT1 struct {
	ScanID  string
	Version int            // of its result
	Labels  *volume.Labels // FreeSurfer values on its own grid; nil when they can't be read
}

// Centroid of a structure.
type Centroid struct {
	MM     [3]float64
	Voxels int
	Cut    bool // it reaches the edge of the image and may go on beyond
}

// edgeVoxels of an image count as its edge: the outermost slice is often lost to
// interpolation.
const edgeVoxels = 2

// Centroids of all structures; those that aren't there have no voxels.
func Centroids(l *volume.Labels) (out [anatomy.NumClasses]Centroid) {
	var sum [anatomy.NumClasses][3]float64
	at := 0
	for k := range l.Shape[2] {
		for j := range l.Shape[1] {
			for i := range l.Shape[0] {
				if v := l.Data[at]; v != 0 {
					if a, ok := anatomy.ByLabel(int(v)); ok {
						c := &out[a.Class]
						c.Voxels++
						for x, n := range [3]int{i, j, k} {
							sum[a.Class][x] += float64(n)
							c.Cut = c.Cut || n < edgeVoxels || n >= l.Shape[x]-edgeVoxels
						}
					}
				}
				at++
			}
		}
	}
	for n := range out {
		if c := &out[n]; c.Voxels > 0 {
			for x := range 3 {
				sum[n][x] /= float64(c.Voxels)
			}
			c.MM = l.Affine.Apply(sum[n])
		}
	}
	return out
}

// mark is a landmark in two spaces.
type mark struct {
	name     string
	side     anatomy.Side
	from, to [3]float64
}

// marks are the landmarks that both spaces have whole, and the names of those
// that one of them cuts.
func marks(from [anatomy.NumClasses]Centroid, to func(anatomy.Structure) (p [3]float64, found, cut bool)) (whole []mark, cut []string) {
	for _, s := range anatomy.Structures[1:] {
		if _, ok := anatomy.MNI(s.Class); !ok {
			continue
		}
		c := from[s.Class]
		p, found, cutThere := to(s)
		switch {
		case c.Voxels < minMarkVoxels || !found:
		case c.Cut || cutThere:
			cut = append(cut, s.Name)
		default:
			whole = append(whole, mark{s.Name, s.Side, c.MM, p})
		}
	}
	return whole, cut
}

// fit is a map between landmarks.
type fit struct {
	affine   volume.Affine
	used     []string
	leftOut  []string // cut, or too far off
	residual float64  // root mean square of the used ones, mm
}

// misfit is why there is no map: a text with places for value and limit.
type misfit struct {
	text         string
	value, limit float64
}

// fitMarks maps landmarks by solve, which a wrong one barely moves: the further
// off one lies, the less it counts, and beyond farMM it is left out.
func fitMarks(all []mark, cut []string, solve func([]mark, []float64) volume.Affine) (f fit, no *misfit) {
	f.leftOut = append([]string{}, cut...)
	whole := len(all)
	for round := 0; ; round++ {
		left, right := 0, 0
		for _, m := range all {
			switch m.side {
			case anatomy.Left:
				left++
			case anatomy.Right:
				right++
			}
		}
		if len(all) < minLandmarks {
			return f, &misfit{"Only %.0f structures are whole and where they can be (limit %.0f).", float64(len(all)), minLandmarks}
		}
		if few := min(left, right); few < minOfSide {
			return f, &misfit{"Only %.0f structures of one side are whole and where they can be (limit %.0f).", float64(few), minOfSide}
		}
		if share := float64(len(all)) / float64(whole); share < minMarkShare {
			return f, &misfit{"Only a share of %.2f of the structures are where they can be (limit %.2f).", share, minMarkShare}
		}
		off := f.robust(all, solve)
		kept := all[:0:0]
		for n, m := range all {
			if off[n] <= farMM || round == landmarkRounds {
				kept = append(kept, m)
			} else {
				f.leftOut = append(f.leftOut, m.name)
			}
		}
		if len(kept) < len(all) {
			all = kept
			continue
		}
		sum := 0.0
		for n, m := range all {
			f.used = append(f.used, m.name)
			sum += off[n] * off[n]
		}
		f.residual = math.Sqrt(sum / float64(len(all)))
		break
	}
	if !(f.residual <= maxResidualMM) {
		return f, &misfit{"The structures lie %.1f mm from where they should (limit %.1f mm).", f.residual, maxResidualMM}
	}
	if s := scales(f.affine); !(s[2] >= minScale) {
		return f, &misfit{"The head would have to be stretched to %.2f of its size (limit %.2f).", s[2], minScale}
	} else if !(s[0] <= maxScale) {
		return f, &misfit{"The head would have to be stretched to %.2f of its size (limit %.2f).", s[0], maxScale}
	} else if f.affine.Det() <= 0 {
		return f, &misfit{"The head would have to be mirrored (determinant %.2f, limit %.0f).", f.affine.Det(), 0}
	}
	return f, nil
}

// robust solves with weights 1/(1+(off/robustMM)²), again and again (Cauchy's;
// Holland & Welsch 1977, doi:10.1080/03610927708827533), and returns how far
// each landmark is off.
func (f *fit) robust(all []mark, solve func([]mark, []float64) volume.Affine) []float64 {
	w, off := make([]float64, len(all)), make([]float64, len(all))
	for n := range w {
		w[n] = 1
	}
	for range robustRounds {
		f.affine = solve(all, w)
		for n, m := range all {
			off[n] = distance(f.affine.Apply(m.from), m.to)
			w[n] = 1 / (1 + off[n]*off[n]/(robustMM*robustMM))
		}
	}
	return off
}

// scales are the singular values of the 3x3 part, the greatest first.
func scales(a volume.Affine) []float64 {
	m := mat.NewDense(3, 3, nil)
	for i := range 3 {
		for j := range 3 {
			m.Set(i, j, a[i][j])
		}
	}
	var svd mat.SVD
	if !svd.Factorize(m, mat.SVDNone) {
		return []float64{math.NaN(), math.NaN(), math.NaN()}
	}
	return svd.Values(nil)
}

// stiffMM says how stiff the affine is: where landmarks lie within it of their
// middle they hardly tell how a head is stretched or sheared. It is the ratio of
// what a centroid is off by (1.5 mm) to how much heads differ from the average
// beyond their size (.05).
const stiffMM = 30.0

// affineFit is the affine of weighted least squares, drawn towards the fit that
// only turns, shifts and scales. Without that, a run that cuts the cerebellum
// would be sheared by its noise.
func affineFit(all []mark, w []float64) volume.Affine {
	m := momentsOf(all, w)
	r, scale := m.similarity()
	left, right := mat.NewDense(3, 3, nil), mat.NewDense(3, 3, nil)
	for i := range 3 {
		for j := range 3 {
			left.Set(i, j, m.across.At(i, j)+stiffMM*stiffMM*scale*r.At(i, j))
			right.Set(i, j, m.within.At(i, j))
		}
		right.Set(i, i, right.At(i, i)+stiffMM*stiffMM)
	}
	var inverse, linear mat.Dense
	if err := inverse.Inverse(right); err != nil { // not finite
		return volume.Affine{3: {3: 1}}
	}
	linear.Mul(left, &inverse)
	return m.affine(&linear)
}

// rigidFit is the rotation and shift of weighted least squares (Kabsch 1976,
// doi:10.1107/S0567739476001873).
func rigidFit(all []mark, w []float64) volume.Affine {
	m := momentsOf(all, w)
	r, _ := m.similarity()
	return m.affine(r)
}

// moments of weighted landmarks about their middles.
type moments struct {
	from, to       [3]float64
	within, across *mat.Dense // sums of from·fromᵀ and to·fromᵀ
}

func momentsOf(all []mark, w []float64) moments {
	m := moments{within: mat.NewDense(3, 3, nil), across: mat.NewDense(3, 3, nil)}
	sum := 0.0
	for n, k := range all {
		sum += w[n]
		for a := range 3 {
			m.from[a] += w[n] * k.from[a]
			m.to[a] += w[n] * k.to[a]
		}
	}
	for a := range 3 {
		m.from[a] /= sum
		m.to[a] /= sum
	}
	for n, k := range all {
		for i := range 3 {
			for j := range 3 {
				m.within.Set(i, j, m.within.At(i, j)+w[n]*(k.from[i]-m.from[i])*(k.from[j]-m.from[j]))
				m.across.Set(i, j, m.across.At(i, j)+w[n]*(k.to[i]-m.to[i])*(k.from[j]-m.from[j]))
			}
		}
	}
	return m
}

// similarity returns the best rotation and the best scale with it (Umeyama 1991,
// doi:10.1109/34.88573).
func (m moments) similarity() (rotation *mat.Dense, scale float64) {
	var svd mat.SVD
	rotation = mat.NewDense(3, 3, nil)
	if !svd.Factorize(m.across, mat.SVDFull) {
		return rotation, math.NaN()
	}
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	d := svd.Values(nil)
	if mat.Det(&u)*mat.Det(&v) < 0 { // a mirror image: turn the weakest direction round
		d[2] = -d[2]
		for i := range 3 {
			u.Set(i, 2, -u.At(i, 2))
		}
	}
	rotation.Mul(&u, v.T())
	return rotation, (d[0] + d[1] + d[2]) / mat.Trace(m.within)
}

// affine has a linear part and takes one middle to the other.
func (m moments) affine(linear *mat.Dense) volume.Affine {
	out := volume.Affine{3: {3: 1}}
	for i := range 3 {
		out[i][3] = m.to[i]
		for j := range 3 {
			out[i][j] = linear.At(i, j)
			out[i][3] -= linear.At(i, j) * m.from[j]
		}
	}
	return out
}

// fitMNI maps a head to MNI space by the centroids of its structures.
func fitMNI(c [anatomy.NumClasses]Centroid) (fit, *misfit) {
	whole, cut := marks(c, func(s anatomy.Structure) ([3]float64, bool, bool) {
		p, ok := anatomy.MNI(s.Class)
		return p, ok, false
	})
	return fitMarks(whole, cut, affineFit)
}

// fitT1 maps a run to a T1 of the same head: rigidly.
func fitT1(run, t1 [anatomy.NumClasses]Centroid) (fit, *misfit) {
	whole, cut := marks(run, func(s anatomy.Structure) ([3]float64, bool, bool) {
		c := t1[s.Class]
		return c.MM, c.Voxels >= minMarkVoxels, c.Cut
	})
	return fitMarks(whole, cut, rigidFit)
}

// Locate finds a run in MNI space by the labels of its mean image: through the
// subject's T1 where there is one, else by an affine of its own. The reasons say
// what couldn't be used; without a place ToMNI is nil.
func Locate(labels *volume.Labels, t1 *StoredT1) (neuroscreen.FMRIPlace, []neuroscreen.Reason) {
	var reasons []neuroscreen.Reason
	because := func(code, lead string, m *misfit) {
		reasons = append(reasons, neuroscreen.Reason{Code: code, Text: lead + fmt.Sprintf(m.text, m.value, m.limit), Value: &m.value, Limit: &m.limit})
	}
	run := Centroids(labels)
	if t1 != nil {
		const lead = "The subject's T1-weighted scan was not used to find the place of this run. "
		if t1.Labels == nil {
			reasons = append(reasons, neuroscreen.Reason{Code: T1Unused, Text: lead + "Its labels can't be read."})
		} else if place, no := throughT1(run, t1); no == nil {
			return place, nil
		} else {
			because(T1Unused, lead, no)
		}
	}
	mni, no := fitMNI(run)
	if no != nil {
		because(PlaceUnknown, "The place of this run in MNI space is not known, so that nothing which needs it is given. ", no)
		place := placeOf("", mni, volume.Affine{})
		place.ToMNI = nil
		return place, reasons
	}
	return placeOf(PlaceFromRun, mni, mni.affine), reasons
}

// throughT1 lays the run onto the T1, and the T1 into MNI space.
func throughT1(run [anatomy.NumClasses]Centroid, t1 *StoredT1) (neuroscreen.FMRIPlace, *misfit) {
	anatomical := Centroids(t1.Labels)
	rigid, no := fitT1(run, anatomical)
	if no != nil {
		return neuroscreen.FMRIPlace{}, no
	}
	mni, no := fitMNI(anatomical)
	if no != nil {
		return neuroscreen.FMRIPlace{}, no
	}
	place := placeOf(PlaceFromT1, mni, mni.affine.Mul(rigid.affine))
	place.T1 = &neuroscreen.FMRIStoredT1{ScanID: t1.ScanID, Version: t1.Version, ToT1: [4][4]float64(rigid.affine),
		Structures: rigid.used, LeftOut: rigid.leftOut, ResidualMM: rigid.residual}
	return place, nil
}

func placeOf(from string, f fit, toMNI volume.Affine) neuroscreen.FMRIPlace {
	m := [4][4]float64(toMNI)
	out := neuroscreen.FMRIPlace{From: from, ToMNI: &m, Structures: append([]string{}, f.used...), LeftOut: f.leftOut, LimitMM: maxResidualMM}
	if len(f.used) > 0 {
		out.ResidualMM = &f.residual
	}
	slices.Sort(out.LeftOut)
	return out
}
