package fmri

import (
	"context"
	"fmt"
	"slices"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// Limits of a run's quality (reviewed by Parkes 2018,
// doi:10.1016/j.neuroimage.2017.12.073, for motion).
const (
	ReviewMeanFD = 0.25 // mm
	MostMeanFD   = 0.5  // mm: beyond, measures are not compared
	ReviewTSNR   = 30   // median; 50 to 100 are usual at 3 T in voxels of 3 mm
	// ReviewOutOfView, in percent of the brain's voxels: what is lost is not
	// spread over the brain but its top or bottom.
	ReviewOutOfView = 5
)

// Stable codes of a run's quality.
const (
	HeadMotion     = "head-motion"
	LowTSNR        = "low-tsnr"
	BrainOutOfView = "brain-out-of-view"
	NoNodes        = "no-structures"
	NoSignal       = "no-signal" // refuses
)

// brainShare of the brain's median signal that a voxel needs: below, the field
// of the sinuses has put it out.
const brainShare = 0.15

// Given is what Measure may use beside the run.
type Given struct {
	T1          *StoredT1 // of the same subject; nil without one
	Coordinates *Atlas    // spheres to connect beside the default network's; nil for none
}

// Measure reads everything from an aligned run whose mean image was labelled
// with FreeSurfer values on the run's own grid. The reasons ask for a review.
//
// Errors: CodeUnprocessable NotAligned or NoSignal; ctx's; the spool's.
func Measure(ctx context.Context, r *Run, al *Alignment, mean *volume.Volume, labels *volume.Labels, given Given) (*Measured, []neuroscreen.Reason, error) {
	mask := brainMask(mean, labels)
	if mask == nil {
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, NoSignal,
			"the brain's values are not over 0, so that they are no signal of a scanner; send the run as it was reconstructed")
	}
	s, err := r.series(ctx, al, mask, steadyFrames(al))
	if err != nil {
		return nil, nil, err
	}
	if len(s.Voxels) == 0 {
		return nil, nil, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, NotAligned,
			"no voxel of the brain stays in the field of view throughout; the head moved too far")
	}
	reasons := r.Notes()
	out := &Measured{FMRI: neuroscreen.FMRI{
		Evidence: neuroscreen.Experimental, TRSeconds: r.TR.Seconds, TRFrom: r.TR.From, DummyScans: r.Dummies, Frames: r.Frames,
		Seconds: r.Seconds(), BrainVoxels: len(s.Voxels), BrainML: float64(len(s.Voxels)) * r.VoxelMM3() / 1000,
		Withheld: []string{}, NotComparable: []string{}, Structures: []neuroscreen.FMRIStructure{}, Connectomes: []neuroscreen.FMRIConnectome{},
	}, Carpet: MakeCarpet(s, labels)}
	q := Assess(s, al.Motion, r.TR.Seconds)
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	out.Motion, out.Quality = motionOut(al, q), qualityOut(q)
	review := func(code, text string, value, limit float64) {
		reasons = append(reasons, neuroscreen.Reason{Code: code, Text: fmt.Sprintf(text, value, limit), Value: &value, Limit: &limit})
	}
	if fd := q.MeanFD(); fd > ReviewMeanFD {
		review(HeadMotion, "The head moved by %.2f mm from frame to frame on average (limit %.2f mm).", fd, ReviewMeanFD)
		if fd > MostMeanFD {
			out.NotComparable = append(out.NotComparable, HeadMotion)
		}
	}
	if q.MedianTSNR < ReviewTSNR {
		review(LowTSNR, "The signal is %.0f times its noise over time at the median (limit %.0f).", q.MedianTSNR, ReviewTSNR)
	}
	if lost := 100 * (1 - float64(len(s.Voxels))/float64(count(mask))); lost > ReviewOutOfView {
		review(BrainOutOfView, "%.0f %% of the brain's voxels left the field of view when the head moved, and are missing from every measure (limit %.0f %%).", lost, ReviewOutOfView)
	}
	if r.Seconds() < MinSeconds {
		out.NotComparable = append(out.NotComparable, TooShort)
	}

	var notes []neuroscreen.Reason
	out.Place, notes = Locate(labels, given.T1)
	reasons = append(reasons, notes...)

	white, whiteEroded := Tissue(labels, WhiteMatterLabels)
	csf, csfEroded := Tissue(labels, VentricleLabels)
	n := FindNuisance(s, al.Motion, q, white, csf, r.TR.Seconds, PassBand)
	for t, kept := range n.Kept {
		if !kept {
			out.Carpet.LeftOut = append(out.Carpet.LeftOut, t)
		}
	}
	band := n.Design(true, false)
	out.Clean = neuroscreen.FMRIClean{
		KeptFrames: len(band.Frames), LowHz: PassBand.Low, HighHz: PassBand.High, HighPassSeconds: HighPassSeconds, Motion: len(n.Motion),
		WhiteMatter: len(n.WhiteMatter), CSF: len(n.CSF), NotEroded: !whiteEroded || !csfEroded, Rank: band.Rank, DegreesOfFreedom: band.DegreesOfFreedom,
	}
	nodes := Nodes(s, labels.Data)
	of := voxelsOf(s, labels)
	for _, node := range nodes {
		out.Structures = append(out.Structures, neuroscreen.FMRIStructure{
			Structure: node.Name, Label: node.Label, Voxels: node.Voxels, TSNR: meanOf(q.TSNR, of[node.Class])})
	}
	if band.DegreesOfFreedom < MinDegreesOfFreedom {
		review(FewDegreesOfFreedom, "Cleaning leaves %.0f degrees of freedom (limit %.0f): nothing is read from the signal. A longer run leaves more.",
			float64(band.DegreesOfFreedom), MinDegreesOfFreedom)
		out.Withheld = append(out.Withheld, FewDegreesOfFreedom)
		return out, reasons, nil
	}
	if len(nodes) < 3 {
		review(NoNodes, "Only %.0f structures have voxels enough (limit %.0f).", float64(len(nodes)), 3)
		out.Withheld = append(out.Withheld, NoNodes)
		return out, reasons, nil
	}
	for _, global := range []bool{false, true} {
		out.Connectomes = append(out.Connectomes, connectomeOut(nodes, n.Design(true, global), global)...)
	}
	if out.Place.ToMNI != nil {
		toMNI := volume.Affine(*out.Place.ToMNI)
		out.DefaultMode = spheresOut(s, r.Grid, toMNI, DefaultMode(), n)
		if given.Coordinates != nil {
			out.Coordinates = spheresOut(s, r.Grid, toMNI, given.Coordinates, n)
		}
	}
	alff, falff := Amplitudes(s, band, n.Design(false, false))
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	band.Clean(s)
	reho := ReHo(s, r.Shape)
	out.Maps = &Maps{ALFF: onGrid(s, alff, r.Len()), FALFF: onGrid(s, falff, r.Len()), ReHo: onGrid(s, reho, r.Len())}
	for i, node := range nodes {
		a, f, w := meanOf(alff, of[node.Class]), meanOf(falff, of[node.Class]), meanOf(reho, of[node.Class])
		out.Structures[i].ALFF, out.Structures[i].FALFF, out.Structures[i].ReHo = &a, &f, &w
	}
	return out, reasons, ctx.Err()
}

// steadyFrames are those that motion alone does not scrub. Cleaning keeps no
// others, and so a voxel that is out of view in the rest needn't be given up.
func steadyFrames(al *Alignment) []bool {
	moved := make([]bool, len(al.Motion))
	for t, fd := range FramewiseDisplacement(al.Motion) {
		moved[t] = fd > MaxFD
	}
	return Scrub(moved)
}

func count(mask []bool) (n int) {
	for _, in := range mask {
		if in {
			n++
		}
	}
	return n
}

// brainMask is true in the labelled brain, less CSF outside of it and voxels
// without signal; nil when the brain as a whole has none.
func brainMask(mean *volume.Volume, labels *volume.Labels) []bool {
	csf := uint8(anatomy.Structures[anatomy.CSF].Label)
	var inside []float32
	for at, l := range labels.Data {
		if l != 0 && l != csf {
			inside = append(inside, mean.Data[at])
		}
	}
	least := brainShare * volume.Percentiles(inside, 50)[0]
	if !(least > 0) {
		return nil
	}
	mask := make([]bool, len(labels.Data))
	for at, l := range labels.Data {
		mask[at] = l != 0 && l != csf && mean.Data[at] > least
	}
	return mask
}

// voxelsOf returns which voxels of a series belong to each structure.
func voxelsOf(s *Series, labels *volume.Labels) (of [anatomy.NumClasses][]int) {
	for n, at := range s.Voxels {
		if a, ok := anatomy.ByLabel(int(labels.Data[at])); ok {
			of[a.Class] = append(of[a.Class], n)
		}
	}
	return of
}

// meanOf leaves out voxels without a value; 0 for none.
func meanOf(x []float32, at []int) float64 {
	sum, n := 0.0, 0
	for _, i := range at {
		if x[i] != 0 {
			sum += float64(x[i])
			n++
		}
	}
	return sum / float64(max(n, 1))
}

func motionOut(al *Alignment, q *Quality) neuroscreen.FMRIMotion {
	m := neuroscreen.FMRIMotion{ReferenceFrame: al.Reference, CentreMM: al.Centre, FDMM: q.FD, MeanFDMM: q.MeanFD(), MaxFDMM: slices.Max(q.FD)}
	for _, f := range al.Motion {
		m.Parameters = append(m.Parameters, f.Parameters())
	}
	return m
}

func qualityOut(q *Quality) neuroscreen.FMRIQuality {
	out := neuroscreen.FMRIQuality{DVARS: q.DVARS, StdDVARS: q.StdDVARS, GlobalSignal: q.GlobalSignal, OutlierShare: q.OutlierShare,
		OutlierFrames: []int{}, SpikeFrames: q.Spikes, MedianTSNR: q.MedianTSNR, DriftPercentPerMinute: q.DriftPercentPerMinute}
	for t, o := range q.Outlier {
		if o {
			out.OutlierFrames = append(out.OutlierFrames, t)
		}
	}
	return out
}

// spheresOut connects the spheres of an atlas.
func spheresOut(s *Series, g volume.Grid, toMNI volume.Affine, a *Atlas, n *Nuisance) *neuroscreen.FMRISpheres {
	out := &neuroscreen.FMRISpheres{Atlas: a.Name, SHA256: a.SHA256, Connectomes: []neuroscreen.FMRIConnectome{}, Networks: [][]neuroscreen.FMRINetwork{}}
	of := Within(s, g, toMNI, a.Spheres)
	fromMNI := toMNI.Inverse()
	for i, o := range a.Spheres {
		out.Spheres = append(out.Spheres, neuroscreen.FMRISphere{Name: o.Name, Network: o.Network, MNI: o.Centre, RunMM: fromMNI.Apply(o.Centre),
			RadiusMM: o.RadiusMM, Voxels: len(of[i]), Node: len(of[i]) >= minNodeVoxels})
	}
	nodes, index := sphereNodes(s, a.Spheres, of)
	var network []string
	for _, i := range index {
		network = append(network, a.Spheres[i].Network)
	}
	for _, global := range []bool{false, true} {
		for _, c := range connectomeOut(nodes, n.Design(true, global), global) {
			within := []neuroscreen.FMRINetwork{}
			for _, w := range Networks(c.FisherZ, network) {
				within = append(within, neuroscreen.FMRINetwork{Network: w.Name, Nodes: w.Nodes, MeanZ: w.MeanZ})
			}
			out.Connectomes, out.Networks = append(out.Connectomes, c), append(out.Networks, within)
		}
	}
	return out
}

// connectomeOut is empty where the design leaves too little.
func connectomeOut(nodes []Node, d *Design, global bool) []neuroscreen.FMRIConnectome {
	c := Connect(nodes, d)
	if c == nil {
		return nil
	}
	out := neuroscreen.FMRIConnectome{GlobalSignalRemoved: global, DegreesOfFreedom: d.DegreesOfFreedom, FisherZ: c.Z,
		StandardError: c.StandardError, SplitHalf: c.SplitHalf, Reliability: c.Reliability}
	var grey []int
	for i, n := range nodes {
		out.Nodes = append(out.Nodes, n.Name)
		if n.Grey() {
			grey = append(grey, i)
			out.Graph.Nodes = append(out.Graph.Nodes, n.Name)
		}
	}
	r := make([][]float64, len(grey))
	for i, a := range grey {
		for _, b := range grey {
			r[i] = append(r[i], c.R[a][b])
		}
	}
	g := NewGraph(r, GraphDensity)
	out.Graph.Density, out.Graph.Degree, out.Graph.Strength, out.Graph.Clustering = g.Density, g.Degree, g.Strength, g.Clustering
	out.Graph.PathLength, out.Graph.Connected, out.Graph.Modularity, out.Graph.Module = g.PathLength, g.Connected, g.Modularity, g.Module
	return []neuroscreen.FMRIConnectome{out}
}
