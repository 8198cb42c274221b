package neuroscreen

// FMRI is the part of a result that a BOLD run gives. Frames count from the
// first that was kept after the dummy scans. Everything in it is experimental:
// no flag rests on it.
//
// Units: mm, radians, seconds, Hz.
type FMRI struct {
	Evidence    Evidence `json:"evidence"`
	TRSeconds   float64  `json:"tr_s"`
	TRFrom      string   `json:"tr_from"` // "metadata", "header" or "sidecar"
	DummyScans  int      `json:"dummy_scans"`
	Frames      int      `json:"frames"`
	Seconds     float64  `json:"seconds"`
	BrainVoxels int      `json:"brain_voxels"`
	BrainML     float64  `json:"brain_ml"`

	Motion  FMRIMotion  `json:"motion"`
	Quality FMRIQuality `json:"quality"`
	Clean   FMRIClean   `json:"cleaning"`

	Place FMRIPlace `json:"place"`

	// Withheld says why nothing is read from the signal: codes of qc.reasons;
	// Structures then lack ALFF, fALFF and ReHo, and there are no connectomes.
	Withheld []string `json:"withheld"`
	// NotComparable says why the measures that are given must not be compared
	// with other runs'.
	NotComparable []string         `json:"not_comparable"`
	Structures    []FMRIStructure  `json:"structures"`
	Connectomes   []FMRIConnectome `json:"connectomes"` // without, then with the global signal taken out

	// DefaultMode connects the default network's seeds, Coordinates the places
	// that were asked for; nil where the run's place isn't known or nothing is
	// read from the signal.
	DefaultMode *FMRISpheres `json:"default_mode"`
	Coordinates *FMRISpheres `json:"coordinates,omitempty"`
}

// FMRIMotion is how the head moved.
type FMRIMotion struct {
	ReferenceFrame int          `json:"reference_frame"`
	CentreMM       [3]float64   `json:"centre_mm"`  // of the rotations
	Parameters     [][6]float64 `json:"parameters"` // of each frame: x, y, z in mm, then about x, y, z in radians
	FDMM           []float64    `json:"fd_mm"`
	MeanFDMM       float64      `json:"mean_fd_mm"`
	MaxFDMM        float64      `json:"max_fd_mm"`
}

// FMRIQuality of the aligned frames.
type FMRIQuality struct {
	DVARS                 []float64 `json:"dvars"`     // with the median of the brain at 1000
	StdDVARS              []float64 `json:"std_dvars"` // over what is expected
	GlobalSignal          []float64 `json:"global_signal"`
	OutlierShare          []float64 `json:"outlier_share"` // of the voxels
	OutlierFrames         []int     `json:"outlier_frames"`
	SpikeFrames           []int     `json:"spike_frames"`
	MedianTSNR            float64   `json:"median_tsnr"`
	DriftPercentPerMinute float64   `json:"drift_percent_per_minute"`
}

// FMRIClean is what was taken out of the signal, in one projection.
type FMRIClean struct {
	KeptFrames       int     `json:"kept_frames"`
	LowHz            float64 `json:"low_hz"`
	HighHz           float64 `json:"high_hz"`
	HighPassSeconds  float64 `json:"high_pass_s"`
	Motion           int     `json:"motion_regressors"`
	WhiteMatter      int     `json:"white_matter_components"`
	CSF              int     `json:"csf_components"`
	NotEroded        bool    `json:"not_eroded"` // a tissue was too small to take its rim off
	Rank             int     `json:"rank"`       // of everything together
	DegreesOfFreedom int     `json:"degrees_of_freedom"`
}

// FMRIStructure is the mean over a structure's voxels.
type FMRIStructure struct {
	Structure string   `json:"structure"`
	Label     int      `json:"label"`
	Voxels    int      `json:"voxels"`
	TSNR      float64  `json:"tsnr"`
	ALFF      *float64 `json:"alff_percent"`
	FALFF     *float64 `json:"falff"`
	ReHo      *float64 `json:"reho"`
}

// FMRIConnectome between structures.
type FMRIConnectome struct {
	GlobalSignalRemoved bool        `json:"global_signal_removed"`
	DegreesOfFreedom    int         `json:"degrees_of_freedom"`
	Nodes               []string    `json:"nodes"`
	FisherZ             [][]float64 `json:"fisher_z"` // 0 on the diagonal
	StandardError       float64     `json:"standard_error"`
	SplitHalf           float64     `json:"split_half_r"`
	Reliability         float64     `json:"reliability"`
	Graph               FMRIGraph   `json:"graph"`
}

// FMRIGraph of the grey structures.
type FMRIGraph struct {
	Nodes      []string  `json:"nodes"`
	Density    float64   `json:"density"`
	Degree     []int     `json:"degree"`
	Strength   []float64 `json:"strength"`
	Clustering []float64 `json:"clustering"`
	PathLength float64   `json:"path_length"`
	Connected  float64   `json:"connected"` // share of pairs
	Modularity float64   `json:"modularity"`
	Module     []int     `json:"module"`
}

// FMRIPlace is where a run lies in MNI space (MNI152).
type FMRIPlace struct {
	From       string         `json:"from"`        // "run": by the run's own labels; "t1": through the subject's T1; "" when it isn't known
	ToMNI      *[4][4]float64 `json:"to_mni"`      // from the run's mm; nil when it isn't known
	Structures []string       `json:"structures"`  // whose centroids it rests on
	LeftOut    []string       `json:"left_out"`    // cut by the field of view, or too far off
	ResidualMM *float64       `json:"residual_mm"` // root mean square over Structures
	LimitMM    float64        `json:"limit_mm"`    // of ResidualMM
	T1         *FMRIStoredT1  `json:"t1,omitempty"`
}

// FMRIStoredT1 is the earlier scan of the subject that gave the place.
type FMRIStoredT1 struct {
	ScanID     string        `json:"scan_id"`
	Version    int           `json:"version"` // of its result
	ToT1       [4][4]float64 `json:"to_t1"`   // rigid, from the run's mm to the T1's
	Structures []string      `json:"structures"`
	LeftOut    []string      `json:"left_out"`
	ResidualMM float64       `json:"residual_mm"`
}

// FMRISpheres are places in MNI space and what they have to do with each other.
type FMRISpheres struct {
	Atlas       string           `json:"atlas"`
	SHA256      string           `json:"sha256"` // of its table
	Spheres     []FMRISphere     `json:"spheres"`
	Connectomes []FMRIConnectome `json:"connectomes"` // without, then with the global signal taken out
	Networks    [][]FMRINetwork  `json:"networks"`    // of each connectome
}

// FMRISphere is one place. It is a node where it has voxels enough.
type FMRISphere struct {
	Name     string     `json:"name"`
	Network  string     `json:"network"`
	MNI      [3]float64 `json:"mni"`
	RunMM    [3]float64 `json:"run_mm"` // where it lies in the run
	RadiusMM float64    `json:"radius_mm"`
	Voxels   int        `json:"voxels"`
	Node     bool       `json:"node"`
}

// FMRINetwork of at least two nodes.
type FMRINetwork struct {
	Network string  `json:"network"`
	Nodes   int     `json:"nodes"`
	MeanZ   float64 `json:"mean_z"` // of Fisher's z over all pairs
}

// IntendedUseRun goes with every report and page of a BOLD run.
const IntendedUseRun = "Research use. Automatic measurement of motion, quality and slow fluctuations of the signal in a functional brain MRI. " +
	"There are no reference values: nothing here says whether a measure is usual. For review by a qualified physician together with the source images."
