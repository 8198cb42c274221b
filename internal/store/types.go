package store

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
)

// Actor names who does something, for the audit trail: the id of a key, or
// "system:<part>" for the service itself. Never a person's name.
type Actor string

// System is the actor of background work.
const System Actor = "system:worker"

// Site is one tenant. Every row of every other table belongs to one.
type Site struct {
	ID      uuid.UUID
	Name    string // short and stable, e.g. "default"
	Created time.Time
}

// SiteSettings is one version of a site's settings. It never changes.
type SiteSettings struct {
	Version  int             // from 1; 0 before any was stored
	Settings json.RawMessage // thresholds, priors, calibration; read by the pipeline
	By       Actor
	Note     string // why
	Created  time.Time
}

// KeyRecord is an API key without its secret.
type KeyRecord struct {
	ID       uuid.UUID
	SiteID   uuid.UUID
	Prefix   string // the public part, shown in lists and logs
	Role     neuroscreen.Role
	Label    string
	Created  time.Time
	LastUsed *time.Time // to the minute
	Revoked  *time.Time
}

// NewScan is what the intake knows once the scan is in the blob store. What
// was received and what is stored differ: the blobs are copies without free
// text. The hashes of the received bytes make two posts the same. Metadata still holds the posted identifiers; CreateScan replaces them
// by the pseudonym and keeps them encrypted in the link table. BirthDate is
// dropped, so AgeYears must already be set.
type NewScan struct {
	Metadata neuroscreen.Metadata
	SHA256   string // of the received bytes, hex
	Size     int64  // of the received bytes
	BlobKey  string // of the copy
	// The same of the .hdr that came with an .img; empty without.
	HeaderSHA256  string
	HeaderSize    int64
	HeaderBlobKey string
	// IdempotencyKey as sent by the client, or empty. Stored as a keyed hash.
	IdempotencyKey string
	// Refused says why there is nothing to analyse and no blob; SHA256 then
	// only makes two such posts the same.
	Refused []neuroscreen.Reason
}

// CreatedScan says whether the scan is new.
type CreatedScan struct {
	Scan      ScanRecord
	Duplicate bool // the same bytes for the same subject, or a repeated idempotency key
}

// ScanRecord is one scan. Metadata.SubjectID is the pseudonym and the other
// posted identifiers are empty.
type ScanRecord struct {
	ID            uuid.UUID
	SiteID        uuid.UUID
	Pseudonym     string
	State         neuroscreen.State
	Reasons       []neuroscreen.Reason // of refused, failed or cancelled; of received, why another attempt is due
	Metadata      neuroscreen.Metadata
	SHA256        string // of the received bytes, hex
	Size          int64  // of the received bytes
	BlobKey       string // of the copy without free text
	HeaderBlobKey string // "" unless an .hdr/.img pair was posted
	HeaderSize    int64
	Run           int // 1, and one more for each retry, correction, or amendment that scores anew
	Attempt       int // workers that have taken up this run
	ResultVersion int // newest, whether it stands or not; 0 before the first
	Created       time.Time
	Updated       time.Time
	Finished      *time.Time // when State became final
	BytesRemoved  *time.Time // when retention took the blobs; BlobKey is empty then, as it is where Size is 0
}

// CurrentVersion is the version that CurrentResult returns; 0 while no result
// stands.
func (r ScanRecord) CurrentVersion() int {
	if r.State != neuroscreen.Scored {
		return 0
	}
	return r.ResultVersion
}

// ScanFilter selects scans of a site; nil fields do not filter. SubjectID and
// AccessionNumber are the posted values.
type ScanFilter struct {
	SubjectID       *string
	AccessionNumber *string
	State           *neuroscreen.State
	Limit           int // 100 when 0, at most 1000
}

// MetadataPatch corrects what was said of a scan; nil fields stay.
type MetadataPatch struct {
	AgeYears        *float64
	Sex             *neuroscreen.Sex
	ScanDate        *string
	ConsentResearch *bool // may be given or withdrawn at any time; no result depends on it
}

// Event is one change of a scan's state. Seq counts from 1 per scan without
// gaps and serves as the SSE event id.
type Event struct {
	Seq     int64
	Run     int
	Attempt int
	State   neuroscreen.State
	Reasons []neuroscreen.Reason
	At      time.Time
}

// Identity is what was posted about a subject, decrypted from the link table.
type Identity struct {
	SubjectID           string   `json:"subject_id"`
	AccessionNumber     string   `json:"accession_number,omitempty"`
	StudyInstanceUID    string   `json:"study_instance_uid,omitempty"`
	SeriesInstanceUID   string   `json:"series_instance_uid,omitempty"`
	FrameOfReferenceUID string   `json:"frame_of_reference_uid,omitempty"`
	SOPInstanceUIDs     []string `json:"sop_instance_uids,omitempty"`
}

// ResultVersion is one stored result. It never changes once stored.
type ResultVersion struct {
	ScanID   uuid.UUID
	Version  int // from 1
	Run      int
	SHA256   string               // of Document, hex
	Document json.RawMessage      // a neuroscreen.Result, byte for byte as stored
	Metadata neuroscreen.Metadata // what it was computed with
	Created  time.Time
}

// Result decodes the document.
func (v ResultVersion) Result() (neuroscreen.Result, error) {
	var r neuroscreen.Result
	err := json.Unmarshal(v.Document, &r)
	return r, err
}

// Kinds of derived files.
const (
	KindSegmentation = "segmentation.nii.gz"
	KindPreview      = "preview.png"
	KindReading      = "reading.json"
	KindMaps         = "maps.png" // of a BOLD run, as the files that the contract calls RunFile
)

// Visit is a scored scan of one person with its current result.
type Visit struct {
	ResultVersion
	Received time.Time // the scan
	Rejected bool      // by the last decision on the result
}

// T1Segmentation is the label map of an analysed T1-weighted scan.
type T1Segmentation struct {
	ScanID  uuid.UUID
	Version int // of the result
	BlobKey string
}

// DerivedFile belongs to one result version.
type DerivedFile struct {
	Kind      string // one of the Kind constants, also the file's name in URLs
	MediaType string
	BlobKey   string
	SHA256    string // hex
	Size      int64  // bytes
	Version   int    // of the result; set by the store
}

// CaseSort orders the worklist.
type CaseSort string

const (
	// WorstFirst: flagged, review, failed and refused, in progress, nothing
	// found, no answer (every score abstained), cancelled; within each the
	// oldest first. The default.
	WorstFirst  CaseSort = "worst"
	NewestFirst CaseSort = "newest"
	OldestFirst CaseSort = "oldest"
)

// ReviewState selects cases by whether the current run was decided on.
type ReviewState string

const (
	AnyReview    ReviewState = ""
	OpenCases    ReviewState = "open"
	DecidedCases ReviewState = "decided"
)

// CaseFilter selects a page of the worklist; nil fields do not filter.
//
// With Condition set, Flag and the order are those of that condition's score,
// and only scored scans are listed; without, those of the worst score.
type CaseFilter struct {
	Flag            *neuroscreen.Flag
	Condition       *neuroscreen.Condition
	State           *neuroscreen.State
	Scanner         *string
	SubjectID       *string     // as posted
	AccessionNumber *string     // as posted
	ScanIDs         []uuid.UUID // nil for all
	Review          ReviewState
	Group           string     // of the default order: flagged, review, ended, running, clear, cancelled
	ReceivedFrom    *time.Time // inclusive
	ReceivedBefore  *time.Time // exclusive
	Sort            CaseSort
	Cursor          string // NextCursor of the page before; bound to Sort and Condition
	Limit           int    // 50 when 0, at most 200
}

// CaseRow is one line of the worklist: every scan is a case, refused and
// failed ones too.
type CaseRow struct {
	ScanID    uuid.UUID
	Pseudonym string
	State     neuroscreen.State
	Reasons   []neuroscreen.Reason
	Metadata  neuroscreen.Metadata
	Received  time.Time
	Updated   time.Time
	// Flag, Condition and LikelihoodRatio are of the worst score, or of the
	// filter's condition. Flag is nil while the scan is not scored; Condition
	// and LikelihoodRatio are nil when every score abstained.
	Flag            *neuroscreen.Flag
	Condition       *neuroscreen.Condition
	LikelihoodRatio *float64
	Why             string               // that score in one line
	Quality         *neuroscreen.Verdict // nil while the scan is not scored
	Run             int
	ResultVersion   int // current; 0 while no result stands

	// Who has it open now; nil for nobody.
	HeldBy    *uuid.UUID
	Holder    string // name of that key
	HeldSince *time.Time
	HeldUntil *time.Time

	// The last decision on the current run; nil for none.
	Decision  *Decision
	DecidedBy string // name of the key
	DecidedAt *time.Time
}

// CaseCounts are numbers of open cases, each at most 1,000.
type CaseCounts struct {
	Flagged, Review, Ended, Running, NothingFound, Abstained int
	Changed                                                  *time.Time // nil without cases
}

// Decision on a case.
type Decision string

const (
	Accept Decision = "accept"
	Amend  Decision = "amend"
	Reject Decision = "reject"
)

// NewReview is a decision as it is made. Run and Seen say what the reader had
// before him: the run of the scan and how many decisions on it.
type NewReview struct {
	Decision Decision
	Comment  string
	Excluded []string // structures that are not to be used
	Run      int
	Seen     int
	// Amended is the result without them, when it is another than the one
	// decided on: it becomes the next version. Result.Amendment.FromVersion
	// names the one that it was scored from.
	Amended *Outcome
}

// ReviewRecord is a decision that was made.
type ReviewRecord struct {
	Seq           int
	Run           int
	ResultVersion int
	MadeVersion   int // that the decision made, 0 for none
	Decision      Decision
	Comment       string
	Excluded      []string
	KeyID         uuid.UUID
	By            string // name of the key
	At            time.Time
}

// Hold is who has a case open.
type Hold struct {
	KeyID uuid.UUID
	By    string // name of the key
	Since time.Time
	Until time.Time
}

// CasePage is one page; NextCursor is "" on the last.
type CasePage struct {
	Cases      []CaseRow
	NextCursor string
}

// AuditEntry is one link of a site's chain. Seq counts from 1 without gaps.
type AuditEntry struct {
	Seq     int64
	At      time.Time
	Actor   Actor
	Action  string      // "scan.create", "result.read", ...
	Object  string      // "scan:<id>", "key:<id>", "cases"; never a posted identifier
	Details string      // short and free of patient data
	Scans   []uuid.UUID // that it concerns beside its object: those that a list showed
	Hash    []byte      // HMAC-SHA-256 over this entry and the hash before it
}

// AuditFilter selects entries, newest first.
type AuditFilter struct {
	Object *string
	ScanID *uuid.UUID // the object, or one of the scans
	Actor  *Actor
	Before int64 // only entries with a smaller Seq; 0 for the newest
	Limit  int   // 100 when 0, at most 1000
}

// Lease is the right to work on a scan until Until. Fence is the number that
// every change made under the lease must carry; it grows with each lease,
// cancellation, correction and retry, and shuts out whoever held it before.
type Lease struct {
	Scan     ScanRecord
	Settings SiteSettings          // current when the lease was taken
	LeftOut  []neuroscreen.LeftOut // of the scan's last result, by reviewers: it stays so
	Fence    int64
	Until    time.Time
}

// Outcome ends a run. State is Scored, Refused or Failed; Result and Files go
// with Scored only, Reasons with the other two.
type Outcome struct {
	State   neuroscreen.State
	Reasons []neuroscreen.Reason
	Result  *neuroscreen.Result
	Files   []DerivedFile
}
