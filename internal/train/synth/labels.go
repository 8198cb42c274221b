package synth

import "neuroscreen/internal/anatomy"

// tissue is a row of the table of generation labels: one label of the maps.
type tissue struct {
	label  int // FreeSurfer's; 5xx are SynthSeg's tissues outside the brain
	joins  int // the label whose class it is learnt as; 0 is background
	prior  int // row of t1Priors
	mirror int // the same tissue of the other side; itself on the midline
}

// tissues are the generation labels of SynthSeg (Billot et al. 2023,
// doi:10.1016/j.media.2023.102789; github BBillot/SynthSeg, Apache-2.0:
// generation_labels.npy, generation_classes_contrast_specific.npy). Maps are
// kept as indices into this table.
//
// White-matter lesions (25, 57) count as white matter, choroid plexus (136,
// 137, 163, 164) as the ventricle it lies in; vessels (30, 62), the fifth
// ventricle (72) and the optic chiasm (85) as CSF.
var tissues = [...]tissue{
	{0, 0, 0, 0},
	{14, 14, 1, 14},
	{15, 15, 1, 15},
	{16, 16, 13, 16},
	{24, 24, 1, 24},
	{72, 24, 1, 72},
	{85, 24, 2, 85},
	{502, 0, 14, 502},
	{506, 0, 15, 506},
	{507, 0, 16, 507},
	{508, 0, 17, 508},
	{509, 0, 18, 509},
	{511, 0, 19, 511},
	{512, 0, 20, 512},
	{514, 0, 21, 514},
	{515, 0, 22, 515},
	{516, 0, 23, 516},
	{530, 0, 24, 530},
	{2, 2, 2, 41},
	{3, 3, 3, 42},
	{4, 4, 1, 43},
	{5, 5, 1, 44},
	{7, 7, 4, 46},
	{8, 8, 5, 47},
	{10, 10, 6, 49},
	{11, 11, 3, 50},
	{12, 12, 7, 51},
	{13, 13, 8, 52},
	{17, 17, 3, 53},
	{18, 18, 3, 54},
	{25, 2, 10, 57},
	{26, 26, 3, 58},
	{28, 28, 9, 60},
	{30, 24, 11, 62},
	{136, 4, 12, 163},
	{137, 5, 12, 164},
	{41, 41, 2, 2},
	{42, 42, 3, 3},
	{43, 43, 1, 4},
	{44, 44, 1, 5},
	{46, 46, 4, 7},
	{47, 47, 5, 8},
	{49, 49, 6, 10},
	{50, 50, 3, 11},
	{51, 51, 7, 12},
	{52, 52, 8, 13},
	{53, 53, 3, 17},
	{54, 54, 3, 18},
	{57, 41, 10, 25},
	{58, 58, 3, 26},
	{60, 60, 9, 28},
	{62, 24, 11, 30},
	{163, 43, 12, 136},
	{164, 44, 12, 137},
	// Skull and other head tissue of FreeSurfer, taken as SynthSeg's.
	{165, 0, 22, 165}, {259, 0, 16, 259},
	// Fluid next to the skull, told apart when a map is read.
	{duraLabel, 24, 1, duraLabel},
}

// deepGrey are caudate, hippocampus, amygdala and accumbens. SynthSeg's prior is
// one for them and cortex, but their T1 is shorter.
var deepGrey = map[int]bool{11: true, 17: true, 18: true, 26: true, 50: true, 53: true, 54: true, 58: true}

const whitePrior = 2 // row of t1Priors: white matter

// prior is a tissue class's intensity in T1-weighted heads, 0 to 255: the mean
// and SD over scans of its mean and of its SD within a scan.
type prior struct{ mean, meanSD, sd, sdSD float64 }

// t1Priors are SynthSeg's prior_means_t1.npy and prior_stds_t1.npy.
var t1Priors = [...]prior{
	{7.00, 1.75, 5.00, 2.50},
	{44.44, 11.21, 25.57, 9.84},
	{160.29, 21.66, 15.63, 5.48},
	{96.30, 12.18, 18.92, 6.31},
	{135.95, 13.41, 15.34, 5.66},
	{88.16, 10.56, 17.09, 5.49},
	{129.52, 17.69, 19.59, 7.77},
	{124.05, 15.73, 13.81, 7.15},
	{151.80, 19.51, 8.56, 4.07},
	{142.53, 16.06, 21.13, 6.95},
	{116.10, 14.82, 19.46, 7.17},
	{86.83, 17.48, 17.17, 8.51},
	{59.63, 10.41, 23.65, 11.08},
	{129.78, 12.24, 17.53, 6.78},
	{126.38, 24.80, 83.95, 49.37},
	{18.12, 3.84, 13.86, 7.44},
	{93.91, 9.13, 48.60, 12.56},
	{117.13, 11.67, 64.79, 28.51},
	{69.91, 9.25, 25.47, 13.14},
	{113.73, 12.42, 74.87, 20.47},
	{68.24, 11.10, 35.86, 18.35},
	{48.43, 8.57, 19.92, 9.00},
	{30.20, 6.86, 22.02, 11.60},
	{94.24, 18.32, 43.32, 20.14},
	{144.46, 16.32, 44.67, 26.21},
}

// air is the index of everything outside the head.
const air = 0

var (
	// tissueIndex gives the index of a label.
	tissueIndex = map[int]uint8{}

	// classOf is the network's class of each index, first as it is and then
	// for a mirrored head.
	classOf [2][256]uint8

	// outside marks the indices outside the cranial cavity.
	outside [256]bool
)

// Labels that are treated by name; duraLabel is in no file.
const (
	fluidLabel = 24
	boneLabel  = 515
	duraLabel  = 1000
)

func init() {
	for i, t := range tissues {
		tissueIndex[t.label] = uint8(i)
		s, ok := anatomy.ByLabel(t.joins)
		if !ok {
			panic("synth: no class for a tissue")
		}
		classOf[0][i] = uint8(s.Class)
		classOf[1][i] = uint8(s.Mirror)
		outside[i] = s.Class == 0
	}
}
