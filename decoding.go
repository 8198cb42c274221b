package neuroscreen

// DecodingSchema names the version of the decoding document.
const DecodingSchema = "neuroscreen.decoding/2"

// Event of a task: what the person saw or did, as a BIDS events.tsv has it.
type Event struct {
	Onset    float64 `json:"onset"` // s from the first volume of the file
	Duration float64 `json:"duration"`
	Type     string  `json:"trial_type"`
	Run      string  `json:"run,omitempty"` // "" where the table has no runs
}

// DecodingOptions of a decoding.
type DecodingOptions struct {
	LagSeconds   float64  `json:"lag_s"`        // from an event to the volumes that answer it
	Ignore       []string `json:"ignore"`       // kinds of events that are no condition
	Voxels       int      `json:"voxels"`       // that each fold selects
	Permutations int      `json:"permutations"` // of the labels within runs; 0 for none
	Seed         uint64   `json:"seed"`         // of the permutations
}

// DefaultDecodingOptions are what a caller who names none gets.
func DefaultDecodingOptions() DecodingOptions {
	return DecodingOptions{LagSeconds: 5, Ignore: []string{"rest", "n/a"}, Voxels: 200, Permutations: 200, Seed: 1}
}

// Decoding says how well patterns of activity tell what a person did. It is
// experimental: no score and no flag rests on it.
type Decoding struct {
	Schema   string         `json:"schema"`
	Evidence Evidence       `json:"evidence"`
	Version  string         `json:"version"` // of the software
	Files    []DecodingFile `json:"files"`

	DecodingOptions
	HeadVoxels     int       `json:"head_voxels"` // that all files have
	SelectedVoxels int       `json:"selected_voxels"`
	Samples        int       `json:"samples"`
	Runs           []string  `json:"runs"`
	Conditions     []string  `json:"conditions"`
	Accuracy       float64   `json:"accuracy"`
	Chance         float64   `json:"chance"`       // share of the commonest condition
	RunAccuracy    []float64 `json:"run_accuracy"` // of each run, when it was left out
	Confusion      [][]int   `json:"confusion"`    // a row for each true condition, a column for each answer
	P              *float64  `json:"p"`
	Shuffled       *float64  `json:"shuffled_accuracy"`
}

// DecodingFile is one file of a decoding.
type DecodingFile struct {
	ScanID     string   `json:"scan_id,omitempty"`
	SHA256     string   `json:"sha256"` // of the received bytes, hex
	TRSeconds  float64  `json:"tr_s"`
	TRFrom     string   `json:"tr_from"` // "metadata", "header" or "sidecar"
	DummyScans int      `json:"dummy_scans"`
	Frames     int      `json:"frames"`    // that are kept
	Realigned  bool     `json:"realigned"` // with the first file
	Notes      []Reason `json:"notes"`
}

// DecodingState is how far a posted decoding is.
type DecodingState string

const (
	DecodingReceived DecodingState = "received"
	DecodingDone     DecodingState = "decoded"
	DecodingRefused  DecodingState = "refused"
	DecodingFailed   DecodingState = "failed"
)

// Final reports whether no worker will change the state any more.
func (s DecodingState) Final() bool { return s != DecodingReceived }
