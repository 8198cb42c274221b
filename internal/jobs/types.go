// Package jobs runs analyses in the background: river carries one job per
// run of a scan, and a lease with a fencing token on the scan's row decides
// whose work counts.
package jobs

import (
	"context"
	"io"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/store"
)

// Input of one analysis.
type Input struct {
	ScanID   uuid.UUID
	SiteID   uuid.UUID
	Metadata neuroscreen.Metadata  // SubjectID is the pseudonym; other identifiers are empty
	Settings store.SiteSettings    // current when the work was taken up
	LeftOut  []neuroscreen.LeftOut // of the scan's last result, by reviewers: it stays so
	SHA256   string                // of the received bytes, hex
	Size     int64                 // bytes
	// Image opens the received bytes and Header those of the .hdr that came
	// with an .img; Header is nil when there was none. The analysis closes
	// what it opens.
	Image  func(context.Context) (io.ReadSeekCloser, error)
	Header func(context.Context) (io.ReadSeekCloser, error)
	// T1 looks for the labels of an analysed T1-weighted scan of the same
	// subject at the same site, for a BOLD run; nil when there is none.
	T1 func(context.Context) (*T1, error)
	// Stage records that the scan has reached Checked, Segmented or Measured.
	// An error means that this worker no longer holds the scan (cancelled,
	// corrected, erased or taken over): return it at once.
	Stage func(context.Context, neuroscreen.State) error
}

// T1 is what an earlier analysis found.
type T1 struct {
	ScanID  uuid.UUID
	Version int // of its result
	// Labels opens its segmentation.nii.gz; the analysis closes it.
	Labels func(context.Context) (io.ReadSeekCloser, error)
}

// File is a derived file's bytes.
type File struct {
	Kind      string // store.KindSegmentation, ...
	MediaType string
	Bytes     []byte
}

// Output of one analysis.
type Output struct {
	Result *neuroscreen.Result
	Files  []File
}

// Analyse computes the result of a scan. It returns CodeUnprocessable to
// refuse the scan (RefusedError carries more than one reason), CodeUnavailable
// when a dependency is down and waiting helps, and any other error for what a
// bounded number of new attempts may cure. It stops soon after ctx ends.
type Analyse func(ctx context.Context, in Input) (Output, error)

// RefusedError refuses a scan with all its reasons.
type RefusedError struct {
	Reasons []neuroscreen.Reason
}

func (e *RefusedError) Error() string {
	if len(e.Reasons) == 0 {
		return "scan refused"
	}
	return "scan refused: " + e.Reasons[0].Code
}
