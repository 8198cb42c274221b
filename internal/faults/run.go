package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/blob"
	"neuroscreen/internal/client"
	"neuroscreen/internal/deid"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/store"
)

// Options of a run.
type Options struct {
	Server  string // path of neuroscreen-server
	Head    string // path of a scan that is analysed to its end; without it, faults that need one are left out
	Uploads int    // accepted at least, under each fault that takes many
	Times   int    // each fault happens at least so often
	Only    string // one fault's name, or all
	Log     func(format string, args ...any)
}

// Row is what happened under one fault.
type Row struct {
	Fault    string
	What     string
	Injected int
	Again    int // requests that clients had to send again
	Accepted int
	Lost     int // accepted, and not there or without an end
	Doubled  int // more than one scan, or end, for one post
	Wrong    int // another end than the same scan has undisturbed
	Longest  time.Duration
	Skipped  string
}

// Report of a run.
type Report struct {
	Rows    []Row
	Orphans int // blobs that nothing refers to, after the sweep
	Missing int // blobs that a row refers to and that are not there, or changed
	Swept   int // what the sweep removed
}

// post is a scan that a client wants handed over, and how it must end.
type post struct {
	subject string
	bytes   []byte
	name    string
	times   int // posted so often at once
	cut     bool
	pieces  bool // handed over in pieces
	end     neuroscreen.State
	reason  string

	id  uuid.UUID
	ids map[uuid.UUID]bool
}

// Run breaks things in dir, which is empty.
func Run(ctx context.Context, dir string, opts Options) (Report, error) {
	if opts.Log == nil {
		opts.Log = func(string, ...any) {}
	}
	r, err := newRig(ctx, dir, opts)
	if err != nil {
		return Report{}, err
	}
	defer r.close()
	var report Report
	for _, f := range faults {
		if opts.Only != "" && opts.Only != f.name || opts.Head == "" && f.head {
			continue
		}
		row, err := r.suffer(ctx, f)
		if err != nil {
			return report, fmt.Errorf("faults: %s: %w", f.name, err)
		}
		opts.Log("%-18s %3d times, %3d requests again, %4d accepted, %d lost, %d doubled, %d wrong, longest %v %s",
			row.Fault, row.Injected, row.Again, row.Accepted, row.Lost, row.Doubled, row.Wrong, row.Longest.Round(100*time.Millisecond), row.Skipped)
		report.Rows = append(report.Rows, row)
	}
	return report, r.inventory(ctx, &report)
}

// suffer hands over scans while one fault is at work, heals, and looks for
// them.
func (r *rig) suffer(ctx context.Context, f fault) (Row, error) {
	row := Row{Fault: f.name, What: f.what}
	r.disturbed.Store(0)
	r.hits.Store(0)
	hurting, heal := context.WithCancel(ctx)
	defer heal()
	var times atomic.Int32
	var hurt sync.WaitGroup
	var hurtErr error
	enough := make(chan struct{}, 1)
	var once sync.Once
	if f.hurt != nil {
		hurt.Go(func() {
			defer close(enough)
			hurtErr = f.hurt(hurting, r, func() {
				if times.Add(1) >= int32(r.opts.Times) && !(f.felt && r.disturbed.Load() == 0) {
					once.Do(func() { enough <- struct{}{} })
				}
			})
		})
	} else {
		close(enough)
	}
	bounded, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	posts, err := r.handOver(bounded, f, enough)
	heal()
	hurt.Wait()
	row.Injected, row.Again = int(times.Load()+r.hits.Load()), int(r.disturbed.Load())
	if errors.Is(hurtErr, errNoSmallDisk) {
		row.Skipped = hurtErr.Error()
		hurtErr = nil
	}
	if err := errors.Join(err, hurtErr); err != nil {
		return row, err
	}
	healed := time.Now()
	for _, p := range posts {
		row.Accepted++
		if len(p.ids) > 1 {
			row.Doubled++
		}
		// Two minutes are the promise for a scan whose worker was killed.
		waiting, cancel := context.WithTimeout(ctx, 2*time.Minute)
		end, reason, err := r.await(waiting, p.id)
		cancel()
		switch {
		case err != nil:
			r.opts.Log("%s: scan %s lost: %v", f.name, p.id, err)
			row.Lost++
		case end != p.end || p.reason != "" && reason != p.reason:
			r.opts.Log("%s: scan %s is %s (%s), want %s (%s)", f.name, p.id, end, reason, p.end, p.reason)
			row.Wrong++
		}
	}
	row.Longest = time.Since(healed)
	doubled, err := r.doubled(ctx)
	row.Doubled += doubled
	return row, err
}

// uploaders at once.
const uploaders = 6

// keepCompany is the pause between scans beyond those that are wanted, while a
// fault has not happened often enough: the small disks must hold them all.
const keepCompany = 250 * time.Millisecond

// handOver posts what the fault wants, and more until enough has happened.
func (r *rig) handOver(ctx context.Context, f fault, enough <-chan struct{}) (posts []*post, err error) {
	queue := make(chan *post)
	errs := make(chan error, uploaders)
	workers := uploaders
	if f.oneByOne {
		workers = 1
	}
	for range workers {
		go func() {
			var err error
			for p := range queue {
				if err == nil {
					err = r.deliver(ctx, p)
				}
				if err == nil && f.after != nil {
					err = f.after(ctx, r, p)
				}
			}
			errs <- err
		}()
	}
	count := f.count
	if count == 0 {
		count = max(1, r.opts.Uploads/max(1, f.share))
	}
	for n, more := 0, true; more; n++ {
		p := f.post(r, n)
		posts = append(posts, p)
		queue <- p
		if n+1 < count {
			continue
		}
		select {
		case <-enough:
			more = false
		case <-ctx.Done():
			more = false
		case <-time.After(keepCompany):
		}
	}
	close(queue)
	var all []error
	for range workers {
		all = append(all, <-errs)
	}
	return posts, errors.Join(all...)
}

// deliver posts until the scan is accepted.
func (r *rig) deliver(ctx context.Context, p *post) error {
	if p.cut {
		r.cutShort(p)
	}
	p.ids = map[uuid.UUID]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	var last error
	for range max(p.times, 1) {
		all.Go(func() {
			id, err := r.submit(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				last = err
				return
			}
			p.id = id
			p.ids[id] = true
		})
	}
	all.Wait()
	return last
}

func (r *rig) submit(ctx context.Context, p *post) (uuid.UUID, error) {
	age := 45.0
	for {
		submit := r.api.Submit
		if p.pieces {
			submit = r.api.SubmitInPieces
		}
		scan, _, err := submit(ctx, client.Upload{Scan: bytes.NewReader(p.bytes), Name: p.name,
			Metadata: neuroscreen.Metadata{SubjectID: p.subject, AgeYears: &age, Sex: neuroscreen.Male, Modality: neuroscreen.T1w}})
		if err == nil {
			return scan.ID, nil
		}
		if problem, ok := errors.AsType[*client.ProblemError](err); ok && problem.Status < 500 && problem.Status != 408 && problem.Name() != "incomplete-body" && problem.Status != 429 {
			return uuid.Nil, fmt.Errorf("%s was refused: %w", p.subject, err)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return uuid.Nil, fmt.Errorf("%s was never accepted: %w", p.subject, err)
		}
	}
}

// cutShort sends half of a request and goes away.
func (r *rig) cutShort(p *post) {
	conn, err := net.DialTimeout("tcp", r.web.Listen, time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/scans?subject_id=%s&age_years=45&sex=M&modality=T1w HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
		p.subject, r.key, len(p.bytes))
	conn.Write(p.bytes[:len(p.bytes)/2])
}

// await returns the end of a scan.
func (r *rig) await(ctx context.Context, id uuid.UUID) (neuroscreen.State, string, error) {
	var last error
	for {
		res, err := r.api.GetScanWithResponse(ctx, id)
		switch {
		case err != nil:
			last = err
		case res.JSON200 == nil:
			last = client.ProblemOf(res.HTTPResponse, res.Body)
		case res.JSON200.State.Final():
			reason := ""
			if len(res.JSON200.Reasons) > 0 {
				reason = res.JSON200.Reasons[0].Code
			}
			return res.JSON200.State, reason, nil
		default:
			last = fmt.Errorf("it stays %s %v", res.JSON200.State, res.JSON200.Reasons)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return "", "", errors.Join(last, err)
		}
	}
}

// doubled counts, in the database itself, subjects with more than one scan and
// runs with more than one end. Every subject of a run posts one scan.
func (r *rig) doubled(ctx context.Context) (n int, err error) {
	err = r.pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM (SELECT FROM scans GROUP BY pseudonym HAVING count(*) > 1) AS twice)
		     + (SELECT count(*) FROM (
		           SELECT FROM scan_events WHERE state IN ('scored', 'refused', 'failed', 'cancelled')
		           GROUP BY scan_id, run HAVING count(*) > 1) AS ends)
		     + (SELECT count(*) FROM results r JOIN scans s ON s.id = r.scan_id
		        WHERE r.document -> 'input' ->> 'sha256' <> encode(s.sha256, 'hex'))`).Scan(&n)
	return n, err
}

// inventory stops everything but Postgres, sweeps, and compares files and
// rows.
func (r *rig) inventory(ctx context.Context, report *Report) error {
	for _, p := range r.procs {
		p.stop()
	}
	blobs, err := blob.OpenFiles(r.disk("blobs"))
	if err != nil {
		return err
	}
	defer blobs.Close()
	keys, err := deid.LoadOrCreate(r.dir + "/data/secret")
	if err != nil {
		return err
	}
	st := store.New(store.Config{Pool: r.pool, Keys: keys, Blobs: blobs})
	if report.Swept, err = blobs.Sweep(ctx, time.Now().Add(time.Hour), func(ctx context.Context, keys []string) (int, error) {
		return st.ReleaseBlobs(ctx, keys, blobs.Remove)
	}); err != nil {
		return err
	}
	tx, err := r.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	referred, err := store.BlobKeys(ctx, tx)
	if err != nil {
		return err
	}
	for _, key := range referred {
		if !whole(ctx, blobs, key) {
			report.Missing++
		}
	}
	files, err := countFiles(r.disk("blobs"))
	report.Orphans = files + report.Missing - len(referred)
	return err
}

func whole(ctx context.Context, blobs *blob.Files, key string) bool {
	f, err := blobs.Open(ctx, key)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == key
}

// small is a scan of noise that is too small for a head: it goes all the way
// to a worker, which refuses it at once. Every fourth is posted twice, every
// fifth is cut first.
func small(_ *rig, n int) *post {
	p := &post{subject: uuid.NewString(), bytes: noise(), name: "scan.nii.gz", end: neuroscreen.Refused, reason: "field-of-view-cut", cut: n%5 == 3}
	if n%4 == 1 {
		p.times = 2
	}
	return p
}

func sixTimes(r *rig, n int) *post {
	p := small(r, n)
	p.times = 6
	return p
}

// inPieces is small in pieces.
func inPieces(_ *rig, n int) *post {
	p := small(nil, n)
	p.times, p.cut, p.pieces = 0, false, true
	return p
}

func noise() []byte {
	const side = 40
	data := make([]int16, side*side*side)
	for n := range data {
		data[n] = int16(rand.N(2000))
	}
	var b bytes.Buffer
	err := nifti.Write(&b, nifti.Geometry{Shape: []int{side, side, side}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}, data)
	if err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

// head is the real scan, of another subject each time.
func head(end neuroscreen.State, reason string) func(*rig, int) *post {
	return func(r *rig, _ int) *post {
		return &post{subject: uuid.NewString(), bytes: r.head, name: "head.nii.gz", end: end, reason: reason}
	}
}
