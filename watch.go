package neuroscreen

// WatchedVolume is what is known of a volume when it has just come.
type WatchedVolume struct {
	Volume   int        `json:"volume"`      // from 1, in the order of acquisition
	FDMM     float64    `json:"fd_mm"`       // since the volume before; 0 for the first
	Motion   [6]float64 `json:"motion"`      // against the reference: x, y, z in mm, then about x, y, z in radians
	DVARS    float64    `json:"dvars"`       // with the reference's median at 1000; 0 for the first
	StdDVARS *float64   `json:"std_dvars"`   // over what the volumes so far let expect; null for the first ones
	TSNR     *float64   `json:"median_tsnr"` // over the volumes so far; null for the first ones
	Outlier  bool       `json:"outlier"`     // FD over 0.5 mm or standardised DVARS over 1.5
	// Reference: later volumes are compared with this one, and all before it are
	// dummy scans.
	Reference bool `json:"reference"`
}

// WatchSummary is a run so far.
type WatchSummary struct {
	Volumes       int      `json:"volumes"` // that came, dummy scans included
	Expect        int      `json:"expect"`  // 0 when it is not known
	DummyScans    int      `json:"dummy_scans"`
	Frames        int      `json:"frames"` // without them
	MeanFDMM      float64  `json:"mean_fd_mm"`
	MaxFDMM       float64  `json:"max_fd_mm"`
	OutlierFrames int      `json:"outlier_frames"`
	OutlierShare  float64  `json:"outlier_share"`
	TSNR          *float64 `json:"median_tsnr"`
	UsableMinutes float64  `json:"usable_minutes"` // of frames that are no outliers
	// Repeat: the run cannot become usable any more, for the reasons given.
	Repeat  bool     `json:"repeat"`
	Reasons []Reason `json:"reasons"`
}
