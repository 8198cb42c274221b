package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
	"neuroscreen/internal/config"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/store"
	"neuroscreen/migrations"
)

// Reproduction is a stored result beside the one that its inputs give now.
type Reproduction struct {
	Version     int
	Stored, Now neuroscreen.Software
	Differences []Difference // of the documents; none when they say the same
}

// Difference of two documents at a path, such as volumes[13].mm3; nil where one
// says nothing.
type Difference struct {
	Path        string
	Stored, Now any
}

// Relative is the distance of two numbers in units of the stored one; +Inf of
// anything else.
func (d Difference) Relative() float64 {
	a, isA := number(d.Stored)
	b, isB := number(d.Now)
	if !isA || !isB || a == 0 {
		return math.Inf(1)
	}
	return math.Abs(b/a - 1)
}

func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

// Reproduce analyses a scan's bytes again with what a result was made with:
// metadata, settings, what was left out, and for a run the labels of the T1 that
// placed it. Version 0 is the newest. Nothing is stored but that it was read;
// the service may run meanwhile.
func Reproduce(ctx context.Context, cfg config.Storage, scanID uuid.UUID, version int, log *slog.Logger) (r Reproduction, err error) {
	if err := there(cfg); err != nil {
		return r, err
	}
	s, err := openAsItIs(ctx, cfg, log)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	if known, have, err := migrations.Version(ctx, s.Pool); err != nil {
		return r, err
	} else if have != known {
		return r, fmt.Errorf("the database has schema version %d, this program knows %d: use the program of the service that runs on it", have, known)
	}
	st := store.New(store.Config{Pool: s.Pool, Keys: s.Keys, Blobs: s.Blobs})
	var site uuid.UUID
	err = s.Pool.QueryRow(ctx, "SELECT site_id FROM scans WHERE id = $1", scanID).Scan(&site)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("there is no scan %s here", scanID)
	} else if err != nil {
		return r, err
	}
	scan, err := st.Scan(ctx, site, scanID)
	if err != nil {
		return r, err
	}
	if version == 0 {
		version = scan.ResultVersion
	}
	stored, err := st.ResultVersion(ctx, site, scanID, version)
	if err != nil {
		return r, fmt.Errorf("scan %s has no result of version %d (%w)", scanID, version, err)
	}
	if scan.BytesRemoved != nil {
		return r, errors.New("the scan's bytes were removed when their time was over; post the same file again, then repeat this")
	}
	was, err := stored.Result()
	if err != nil {
		return r, err
	}
	in, err := inputOf(ctx, s, st, scan, stored, was)
	if err != nil {
		return r, err
	}
	if err := st.AppendAudit(ctx, site, store.AuditEntry{Actor: store.System, Action: "result.reproduce", Object: "scan:" + scanID.String(), Details: fmt.Sprintf("version %d", version)}); err != nil {
		return r, err
	}
	analyse, err := newAnalyser(nifti.Limits{})
	if err != nil {
		return r, err
	}
	out, err := analyse(ctx, in)
	if err != nil {
		return r, fmt.Errorf("the scan that gave version %d gives no result now: %w", version, err)
	}
	now, err := json.Marshal(out.Result)
	if err != nil {
		return r, err
	}
	r = Reproduction{Version: version, Stored: was.Software, Now: out.Result.Software}
	r.Differences, err = differences(stored.Document, now)
	return r, err
}

// inputOf is what a worker had when it made the result.
func inputOf(ctx context.Context, s *Storage, st *store.Store, scan store.ScanRecord, stored store.ResultVersion, was neuroscreen.Result) (jobs.Input, error) {
	open := func(key string) func(context.Context) (io.ReadSeekCloser, error) {
		return func(ctx context.Context) (io.ReadSeekCloser, error) { return s.Blobs.Open(ctx, key) }
	}
	in := jobs.Input{
		ScanID: scan.ID, SiteID: scan.SiteID, Metadata: stored.Metadata, SHA256: scan.SHA256, Size: scan.Size, Image: open(scan.BlobKey),
		Stage: func(context.Context, neuroscreen.State) error { return nil },
	}
	if scan.HeaderBlobKey != "" {
		in.Header = open(scan.HeaderBlobKey)
	}
	if was.Amendment != nil {
		in.LeftOut = was.Amendment.LeftOut
	}
	if was.FMRI != nil && was.FMRI.Place.T1 != nil {
		id, err := uuid.Parse(was.FMRI.Place.T1.ScanID)
		if err != nil {
			return in, fmt.Errorf("stored result %s/%d: %w", stored.ScanID, stored.Version, err)
		}
		t1 := was.FMRI.Place.T1
		labels, err := st.DerivedFile(ctx, scan.SiteID, id, t1.Version, store.KindSegmentation)
		if err != nil {
			return in, fmt.Errorf("the T1 that placed the run is not there any more: %w", err)
		}
		in.T1 = func(context.Context) (*jobs.T1, error) {
			return &jobs.T1{ScanID: id, Version: t1.Version, Labels: open(labels.BlobKey)}, nil
		}
	}
	var err error
	in.Settings, err = st.SettingsVersion(ctx, scan.SiteID, was.SettingsVersion)
	return in, err
}

// notCompared: when a result was made and by which program says nothing of what
// it says; an amended one came from another version, which this analysis did not.
var notCompared = []string{"timings_ms", "software", "amendment"}

// differences of two result documents.
func differences(stored, now []byte) ([]Difference, error) {
	var a, b map[string]any
	for doc, into := range map[*[]byte]*map[string]any{&stored: &a, &now: &b} {
		d := json.NewDecoder(bytes.NewReader(*doc))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			return nil, err
		}
		for _, k := range notCompared {
			delete(*into, k)
		}
	}
	var out []Difference
	compare(&out, "", a, b)
	return out, nil
}

func compare(out *[]Difference, path string, a, b any) {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok {
			keys := slices.Collect(maps.Keys(x))
			for k := range y {
				if _, ok := x[k]; !ok {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			for _, k := range keys {
				at := k
				if path != "" {
					at = path + "." + k
				}
				compare(out, at, x[k], y[k])
			}
			return
		}
	case []any:
		if y, ok := b.([]any); ok && len(x) == len(y) {
			for i := range x {
				compare(out, path+"["+strconv.Itoa(i)+"]", x[i], y[i])
			}
			return
		}
	default:
		switch b.(type) {
		case map[string]any, []any:
		default:
			if a == b {
				return
			}
		}
	}
	*out = append(*out, Difference{path, a, b})
}
