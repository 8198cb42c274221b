package qc

import (
	"math"
	"sync"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// Measured is what segmentation leaves to judge.
type Measured struct {
	Image  *volume.Volume              // as received, and then FromZero
	Labels *volume.Labels              // FreeSurfer label values on the image's grid
	MM3    [anatomy.NumClasses]float64 // volume of each class
	// Confidence is the mean greatest posterior over the labelled voxels, and
	// FlipDice the overlap of the labels of the head and of its mirror image;
	// NaN when unknown.
	Confidence, FlipDice float64
	InTemplate           bool // as its header says
}

// icvMM3 is everything but background.
func (m Measured) icvMM3() (sum float64) {
	for _, mm3 := range m.MM3[1:] {
		sum += mm3
	}
	return sum
}

// Assess grades a segmented scan.
//
// It refuses with an error what must not be shown as measured: no brain, a cut
// one, another contrast, impossible volumes. Otherwise it returns the metrics
// and the verdict: pass; review, when a reader must look twice; or refuse,
// when the image is too poor for any score to be given. The gravest reasons
// come first.
func Assess(m Measured) (neuroscreen.QC, error) {
	if m.Image.Shape != m.Labels.Shape {
		panic("qc: image and labels have different shapes")
	}
	f := frameOf(m.Image.Grid)
	l := surveyLabels(m.Labels.Data, f)
	if err := Refuse(checkBrain(m, l)); err != nil {
		return neuroscreen.QC{}, err
	}
	metrics, inside := measure(m, f, l)

	findings := checkSpace(m.InTemplate)
	findings = append(findings, checkContrast(inside, metrics[CJV], metrics[NoiseToContrast])...)
	findings = append(findings, checkEdge(metrics[EdgeMM2])...)
	findings = append(findings, checkVolumes(m)...)
	findings = append(findings, checkSides(m, l, f)...)
	findings = append(findings, checkStripped(metrics[ExtracranialRatio])...)

	q := neuroscreen.QC{Verdict: neuroscreen.VerdictPass, Reasons: []neuroscreen.Reason{}, Metrics: metrics}
	var grave []neuroscreen.Reason
	for _, finding := range findings {
		if finding.grave {
			grave = append(grave, finding.Reason)
		}
		q.Reasons = append(q.Reasons, finding.Reason)
		q.Verdict = neuroscreen.VerdictReview
	}
	if len(grave) > 0 {
		return neuroscreen.QC{}, Refuse(grave)
	}
	for _, limit := range limits {
		switch r, verdict := limit.judge(metrics); verdict {
		case neuroscreen.VerdictRefuse:
			grave = append(grave, r)
			q.Verdict = verdict
		case neuroscreen.VerdictReview:
			q.Reasons = append(q.Reasons, r)
			if q.Verdict == neuroscreen.VerdictPass {
				q.Verdict = verdict
			}
		}
	}
	q.Reasons = append(grave, q.Reasons...)
	return q, nil
}

// measure computes every metric that the image offers, and the signals of the
// tissues.
func measure(m Measured, f frame, l labelled) (map[string]float64, [white + 1]signal) {
	var inside [white + 1]signal
	var noise, variation, edge, focus, energy, round, cut float64
	var a air
	var hasAir bool
	var passes sync.WaitGroup
	passes.Go(func() {
		inside, noise = tissues(m.Image, m.Labels, f, l)
		round = extracranial(m.Image, m.Labels, f, l, inside[grey].median/2)
	})
	passes.Go(func() { edge = slope(m.Image, m.Labels, f, l.box) })
	passes.Go(func() { variation = bias(m.Image, m.Labels, f, l.box) })
	passes.Go(func() { focus = energyFocus(m.Image) })
	passes.Go(func() { energy = labelledEnergy(m.Image, m.Labels) })
	passes.Go(func() { a, hasAir = airOf(m.Image, f, l.box) })
	passes.Go(func() { cut = edgeArea(m.Labels, f) })
	passes.Wait()

	c, g, w := inside[csf], inside[grey], inside[white]
	contrast := math.Abs(w.median - g.median)
	finest, coarsest := min(f.size[0], f.size[1], f.size[2]), max(f.size[0], f.size[1], f.size[2])
	icv := m.icvMM3()
	metrics := map[string]float64{
		SNRWhite:          w.median / w.spread,
		SNRGrey:           g.median / g.spread,
		SNRCSF:            c.median / c.spread,
		CNR:               contrast / math.Hypot(w.spread, g.spread),
		CJV:               (w.spread + g.spread) / contrast,
		NoiseToContrast:   noise / contrast,
		BiasPercent:       100 * variation,
		BoundaryMM:        contrast / math.Abs(edge),
		WhiteToGrey:       w.median / g.median,
		WhiteToStriatum:   w.median / inside[striatum].median,
		CSFToGrey:         c.median / g.median,
		EFC:               focus,
		ExtracranialRatio: round,
		EdgeMM2:           cut,
		VoxelMM:           coarsest,
		Anisotropy:        coarsest / finest,
		Confidence:        m.Confidence,
		FlipDice:          m.FlipDice,
		ICVML:             icv / 1000,
		BrainFraction:     1 - fluidMM3(m.MM3)/icv,
	}
	if hasAir {
		metrics[CNR] = contrast / math.Hypot(math.Hypot(w.spread, g.spread), a.spread)
		metrics[SNRDietrich] = w.median * math.Sqrt(2/(4-math.Pi)) / a.spread
		metrics[FBER] = energy / a.energy
		metrics[GhostPercent] = 100 * a.ghost / w.median
	}
	for name, v := range metrics {
		if v-v != 0 { // NaN or infinite: not to be had from this image
			delete(metrics, name)
		}
	}
	return metrics, inside
}

// fluidMM3 is the volume of the ventricles and other CSF.
func fluidMM3(mm3 [anatomy.NumClasses]float64) (sum float64) {
	for _, s := range anatomy.Structures {
		if s.Tissue == anatomy.Fluid {
			sum += mm3[s.Class]
		}
	}
	return sum
}
