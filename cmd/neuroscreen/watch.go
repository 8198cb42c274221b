package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"neuroscreen"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/volume"
)

type watchCmd struct {
	Dir    string  `arg:"" type:"existingdir" help:"Folder in which the volumes of a run appear, a 3-D NIfTI file (.nii or .nii.gz) each, named in their order."`
	TR     float64 `name:"tr" required:"" help:"Repetition time in seconds."`
	Expect int     `help:"Volumes that the run will have; the command ends with the last of them. Without, it ends when it is interrupted."`
	JSON   bool    `name:"json" help:"A line of JSON for each volume, and one at the end."`
}

// Validate is called by kong.
func (c *watchCmd) Validate() error {
	switch {
	case !(c.TR >= 0.1 && c.TR <= 30):
		return fmt.Errorf("--tr %g: want seconds, 0.1 to 30", c.TR)
	case c.Expect < 0:
		return fmt.Errorf("--expect %d: want a number of volumes", c.Expect)
	}
	return nil
}

const (
	lookEvery = 50 * time.Millisecond
	// giveUpAfter so long without growing, a file that can't be read is damaged.
	giveUpAfter = 5 * time.Second
)

// watchLimits are those of one volume.
var watchLimits = nifti.Limits{MaxBytes: 256 << 20}

func (c *watchCmd) Run(ctx context.Context) error {
	r := &watcher{dir: c.Dir, out: os.Stdout, json: c.JSON, watch: fmri.NewWatch(c.TR, c.Expect), known: map[string]bool{}, said: map[string]bool{}}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for c.Expect == 0 || r.taken < c.Expect {
		more, err := r.look(time.Now())
		if err != nil {
			return err
		}
		if more && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return r.end("interrupted")
		case <-tick.C:
		}
	}
	return r.end("done")
}

// watcher follows a folder.
type watcher struct {
	dir   string
	out   io.Writer
	json  bool
	watch *fmri.Watch
	taken int
	known map[string]bool // files that are done with
	last  string          // the newest that was taken
	said  map[string]bool // reasons that were told

	pending struct { // the file whose turn it is and that is not whole yet
		name           string
		size           int64
		changed, tried time.Time
	}
}

// look takes the next file in the order of names, if it is whole, and reports
// whether to look again at once. A file that is being written holds up those
// after it, since each volume is compared with the one before.
func (r *watcher) look(now time.Time) (more bool, err error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return false, err
	}
	next := ""
	for _, e := range entries {
		name, lower := e.Name(), strings.ToLower(e.Name())
		if r.known[name] || e.IsDir() || strings.HasPrefix(name, ".") || !strings.HasSuffix(lower, ".nii") && !strings.HasSuffix(lower, ".nii.gz") {
			continue
		}
		if next == "" || byNumber(name, next) < 0 {
			next = name
		}
	}
	if next == "" {
		return false, nil
	}
	if r.last != "" && byNumber(next, r.last) < 0 {
		r.leaveOut(next, fmt.Sprintf("it comes before %s, which was taken already", r.last))
		return true, nil
	}
	info, err := os.Stat(filepath.Join(r.dir, next))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // renamed since
	} else if err != nil {
		return false, err
	}
	if p := &r.pending; p.name != next || p.size != info.Size() {
		p.name, p.size, p.changed = next, info.Size(), now
	} else if now.Sub(p.tried) < 10*lookEvery {
		return false, nil
	}
	r.pending.tried = now
	err = r.take(next)
	if _, unreadable := errors.AsType[*nifti.Error](err); unreadable && now.Sub(r.pending.changed) < giveUpAfter {
		return false, nil // it is being written
	}
	if problem := neuroscreen.AsError(refusal(err)); problem != nil {
		if problem.Code != neuroscreen.CodeUnprocessable {
			return false, err
		}
		r.leaveOut(next, problem.Message)
	}
	return true, nil
}

// take judges one file.
func (r *watcher) take(name string) error {
	began := time.Now()
	rd, err := nifti.Open(filepath.Join(r.dir, name), watchLimits)
	if err != nil {
		return err
	}
	defer rd.Close()
	h := rd.Header()
	if h.Volumes() != 1 {
		return neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "not-3d", "its shape is %v; every file is to hold one volume", h.Shape)
	}
	if err := qc.CheckAffine(h); err != nil {
		return err
	}
	v := make([]float32, h.VolumeLen())
	if err := rd.Next(v); err != nil {
		return err
	}
	out, err := r.watch.Add(volume.Grid{Shape: h.Shape3(), Affine: volume.Affine(h.Affine)}, v)
	if err != nil {
		return err
	}
	r.known[name], r.last = true, name
	r.taken++
	return r.tell(name, out, time.Since(began))
}

func (r *watcher) leaveOut(name, why string) {
	r.known[name] = true
	fmt.Fprintf(os.Stderr, "%s is left out: %s\n", name, why)
}

func (r *watcher) tell(name string, v neuroscreen.WatchedVolume, took time.Duration) error {
	s := r.watch.Summary(false)
	if r.json {
		return json.NewEncoder(r.out).Encode(watchLine{File: name, Ms: float64(took.Microseconds()) / 1000, Volume: &v, Summary: s})
	}
	if v.Reference && v.Volume > 1 {
		fmt.Fprintf(r.out, "the signal is steady from volume %d on; those before are left out\n", v.Volume)
	}
	mark := ""
	if v.Outlier {
		mark = "   outlier"
	}
	fmt.Fprintf(r.out, "%4d   FD %5.2f mm   DVARS %5.1f (%s)   tSNR %s   so far: FD %.2f mm, outliers %.0f %%, usable %.1f min%s\n",
		v.Volume, v.FDMM, v.DVARS, orDash(v.StdDVARS, "%.2f"), orDash(v.TSNR, "%.0f"), s.MeanFDMM, 100*s.OutlierShare, s.UsableMinutes, mark)
	for _, reason := range s.Reasons {
		if !r.said[reason.Code] {
			r.said[reason.Code] = true
			fmt.Fprintf(r.out, "  !! %s\n", reason.Text)
		}
	}
	if s.Repeat && !r.said["repeat"] {
		r.said["repeat"] = true
		fmt.Fprintln(r.out, "  !! The run should be repeated.")
	}
	return nil
}

// watchLine is a line of JSON.
type watchLine struct {
	File    string                     `json:"file,omitempty"`
	Ms      float64                    `json:"ms,omitempty"` // from a whole file to its figures
	Volume  *neuroscreen.WatchedVolume `json:"volume,omitempty"`
	Ended   string                     `json:"ended,omitempty"` // "done" or "interrupted"
	Summary neuroscreen.WatchSummary   `json:"summary"`
}

// end says what became of the run.
func (r *watcher) end(how string) error {
	s := r.watch.Summary(true)
	if r.json {
		return json.NewEncoder(r.out).Encode(watchLine{Ended: how, Summary: s})
	}
	fmt.Fprintf(r.out, "\n%s after %d volumes, %d of them dummy scans\n", how, s.Volumes, s.DummyScans)
	if s.Frames > 0 {
		fmt.Fprintf(r.out, "head motion     %.2f mm from volume to volume on average, %.2f at most\noutlier frames  %d of %d\ntSNR            %s\nusable          %.1f min\n",
			s.MeanFDMM, s.MaxFDMM, s.OutlierFrames, s.Frames, orDash(s.TSNR, "%.0f"), s.UsableMinutes)
	}
	for _, reason := range s.Reasons {
		fmt.Fprintln(r.out, reason.Text)
	}
	if s.Repeat {
		fmt.Fprintln(r.out, "The run should be repeated.")
	}
	return nil
}

func orDash(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

// byNumber compares names as people count: the numbers in them by value.
func byNumber(a, b string) int {
	number := func(s string) (digits, rest string) {
		n := len(s) - len(strings.TrimLeft(s, "0123456789"))
		return strings.TrimLeft(s[:n], "0"), s[n:]
	}
	x, y := a, b
	for x != "" && y != "" {
		dx, restX := number(x)
		dy, restY := number(y)
		switch isX, isY := len(restX) < len(x), len(restY) < len(y); {
		case isX && isY:
			if c := cmp.Or(cmp.Compare(len(dx), len(dy)), strings.Compare(dx, dy)); c != 0 {
				return c
			}
			x, y = restX, restY
		case x[0] != y[0]:
			return cmp.Compare(x[0], y[0])
		default:
			x, y = x[1:], y[1:]
		}
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}
