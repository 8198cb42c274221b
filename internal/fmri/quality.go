package fmri

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"neuroscreen/internal/volume"
)

// Limits of a frame that is an outlier (fMRIPrep's defaults).
const (
	MaxFD       = 0.5 // mm
	MaxStdDVARS = 1.5
	// SpikeShare of the brain's voxels that are outliers at the same time.
	SpikeShare = 0.05
)

// Quality of a run, a value a frame and in sum.
type Quality struct {
	FD           []float64 // mm; 0 for the first frame
	DVARS        []float64 // with the median of all values scaled to 1000; 0 for the first frame
	StdDVARS     []float64 // DVARS over what it is expected to be; 0 for the first frame
	GlobalSignal []float64 // mean over the voxels, in the file's units
	OutlierShare []float64 // of voxels far from their own median
	Outlier      []bool    // FD over MaxFD or StdDVARS over MaxStdDVARS
	Spikes       []int     // frames with an OutlierShare over SpikeShare

	TSNR       []float32 // of each voxel; 0 where nothing varies
	MedianTSNR float64

	// DriftPercentPerMinute is the slope of the global signal, in percent of
	// its mean.
	DriftPercentPerMinute float64
}

// MeanFD over all frames but the first.
func (q *Quality) MeanFD() float64 {
	sum := 0.0
	for _, v := range q.FD {
		sum += v
	}
	return sum / float64(max(len(q.FD)-1, 1))
}

// Outliers counts the outlier frames.
func (q *Quality) Outliers() (n int) {
	for _, o := range q.Outlier {
		if o {
			n++
		}
	}
	return n
}

// minSD of a voxel that counts as varying, with the median at 1000 (nipype's
// variance_tol).
const minSD = 1e-7

// Assess measures the quality of aligned frames, tr seconds apart.
//
// DVARS is the root mean square over voxels of the change since the frame
// before (Power 2012), standardised by the mean over voxels of
// sqrt(2(1-AR1)) * IQR/1.349 (Nichols 2017, arXiv:1704.01469); both equal
// nipype's ComputeDVARS, quartiles being the lower neighbours in rank. tSNR is
// the mean over the SD that a quadratic trend leaves (nipype's TSNR with
// regress_poly=2). A voxel is far from its median beyond alpha sqrt(pi/2) MAD,
// alpha with an upper tail of .001/frames (AFNI's 3dToutcount).
func Assess(s *Series, motion []Motion, tr float64) *Quality {
	n := s.Frames
	q := &Quality{FD: FramewiseDisplacement(motion), DVARS: make([]float64, n), StdDVARS: make([]float64, n),
		GlobalSignal: make([]float64, n), OutlierShare: make([]float64, n), Outlier: make([]bool, n), Spikes: []int{},
		TSNR: make([]float32, len(s.Voxels))}
	scale := 1000 / float64(volume.Percentiles(s.Data, 50)[0])
	alpha := distuv.UnitNormal.Quantile(1 - 0.001/float64(n))
	trend := legendre(n, 2)

	type sums struct {
		change, global, far []float64
		sd                  float64
		varying             int
	}
	of := make([]sums, numParts(len(s.Voxels)))
	parts(len(s.Voxels), func(p, from, to int) {
		a := sums{change: make([]float64, n), global: make([]float64, n), far: make([]float64, n)}
		x, sorted := make([]float64, n), make([]float64, n)
		for v := from; v < to; v++ {
			for t, y := range s.Voxel(v) {
				x[t] = float64(y)
				a.global[t] += x[t]
			}
			q.TSNR[v] = float32(tsnr(x, trend))
			copy(sorted, x)
			slices.Sort(sorted)
			sd := scale * (sorted[3*(n-1)/4] - sorted[(n-1)/4]) / 1.349
			if sd > minSD {
				a.varying++
				a.sd += sd * math.Sqrt(2*(1-ar1(x)))
				for t := 1; t < n; t++ {
					d := scale * (x[t] - x[t-1])
					a.change[t] += d * d
				}
			}
			m := (sorted[(n-1)/2] + sorted[n/2]) / 2
			for t := range sorted {
				sorted[t] = math.Abs(x[t] - m)
			}
			if mad := median(sorted); mad > 0 {
				limit := alpha * math.Sqrt(math.Pi/2) * mad
				for t := range x {
					if math.Abs(x[t]-m) > limit {
						a.far[t]++
					}
				}
			}
		}
		of[p] = a
	})
	sd, varying := 0.0, 0.0
	for _, a := range of {
		sd += a.sd
		varying += float64(a.varying)
		for t := range n {
			q.DVARS[t] += a.change[t]
			q.GlobalSignal[t] += a.global[t] / float64(len(s.Voxels))
			q.OutlierShare[t] += a.far[t] / float64(len(s.Voxels))
		}
	}
	for t := range n {
		q.DVARS[t] = math.Sqrt(q.DVARS[t] / max(varying, 1))
		if sd > 0 {
			q.StdDVARS[t] = q.DVARS[t] / (sd / varying)
		}
		q.Outlier[t] = q.FD[t] > MaxFD || q.StdDVARS[t] > MaxStdDVARS
		if q.OutlierShare[t] > SpikeShare {
			q.Spikes = append(q.Spikes, t)
		}
	}
	q.MedianTSNR = float64(volume.Percentiles(q.TSNR, 50)[0])
	line := legendre(n, 1)
	c := project(q.GlobalSignal, line)
	// The first Legendre polynomial climbs by 2 over the run.
	q.DriftPercentPerMinute = 100 * c[1] * 2 / (tr * float64(n-1) / 60) / c[0]
	return q
}

// ar1 is the Yule-Walker estimate of the correlation with the frame before.
func ar1(x []float64) float64 {
	mean := 0.0
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	r0, r1 := 0.0, 0.0
	for t := range x {
		d := x[t] - mean
		r0 += d * d
		if t > 0 {
			r1 += d * (x[t-1] - mean)
		}
	}
	return r1 / r0
}

// tsnr is 0 for a voxel that doesn't vary.
func tsnr(x []float64, trend [][]float64) float64 {
	c := project(x, trend)
	mean, ss := 0.0, 0.0
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for t, v := range x {
		for k := range trend {
			v -= c[k] * trend[k][t]
		}
		ss += v * v
	}
	sd := math.Sqrt(ss / float64(len(x)))
	if sd <= 1e-6*math.Abs(mean) {
		return 0
	}
	return mean / sd
}

// legendre returns the polynomials of degree 0 to degree on n frames from -1 to
// 1, each orthogonal to the others.
func legendre(n, degree int) [][]float64 {
	out := make([][]float64, degree+1)
	for d := range out {
		out[d] = make([]float64, n)
		for t := range n {
			x := 2*float64(t)/float64(n-1) - 1
			out[d][t] = math.Pow(x, float64(d))
		}
		c := project(out[d], out[:d])
		for k := range d {
			for t := range n {
				out[d][t] -= c[k] * out[k][t]
			}
		}
	}
	return out
}

// project returns x's coefficients on an orthogonal basis.
func project(x []float64, basis [][]float64) []float64 {
	c := make([]float64, len(basis))
	for k, b := range basis {
		bx, bb := 0.0, 0.0
		for t := range x {
			bx += b[t] * x[t]
			bb += b[t] * b[t]
		}
		c[k] = bx / bb
	}
	return c
}
