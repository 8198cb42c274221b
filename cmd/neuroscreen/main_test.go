package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/pipeline"
)

// program is the built command that the tests run.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "neuroscreen-cli-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "neuroscreen")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// ran is how a run of the program ended.
type ran struct {
	code           int
	stdout, stderr string
}

// run starts the program without the environment's settings.
func run(t *testing.T, args ...string) ran {
	t.Helper()
	return runWith(t, nil, args...)
}

func runWith(t *testing.T, stdin io.Reader, args ...string) ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = stdin
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

const head = "../../testdata/heads/healthy_45M.nii.gz"

func TestAnalyze(t *testing.T) {
	out := filepath.Join(t.TempDir(), "made", "for", "it")
	r := run(t, "analyze", head, "--age", "45", "--sex", "M", "--out", out, "--subject", "S-7")
	if r.code != 0 {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if r.stdout != "" {
		t.Errorf("standard output is %q; it is for refusals", r.stdout)
	}
	for _, stage := range []string{"checked", "segmented", "measured", "scored"} {
		if !strings.Contains(r.stderr, stage) {
			t.Errorf("progress does not tell %q: %s", stage, r.stderr)
		}
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"preview.png", "report.html", "result.json", "segmentation.nii.gz"}; !slices.Equal(names, want) {
		t.Fatalf("wrote %v, want %v", names, want)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}

	var result neuroscreen.Result
	d := json.NewDecoder(bytes.NewReader(read("result.json")))
	d.DisallowUnknownFields()
	if err := d.Decode(&result); err != nil {
		t.Fatal(err)
	}
	scan, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(scan)
	if result.Schema != neuroscreen.ResultSchema || result.SubjectID != "S-7" || result.Input.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("schema %q, subject %q, hash %q", result.Schema, result.SubjectID, result.Input.SHA256)
	}
	if len(result.Volumes) != 32 || len(result.Scores) < len(neuroscreen.Conditions) || result.IntracranialVolumeMM3 == nil {
		t.Errorf("%d volumes, %d scores, head size %v", len(result.Volumes), len(result.Scores), result.IntracranialVolumeMM3)
	}

	in, err := nifti.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	labels, err := nifti.ReadFile(filepath.Join(out, "segmentation.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(labels.Shape, in.Shape) {
		t.Errorf("labels of shape %v for a scan of shape %v", labels.Shape, in.Shape)
	}
	for i := range 3 {
		for j := range 4 {
			if d := labels.Affine[i][j] - in.Affine[i][j]; d > 1e-4 || d < -1e-4 {
				t.Errorf("affine[%d][%d] is %g, the scan's %g", i, j, labels.Affine[i][j], in.Affine[i][j])
			}
		}
	}
	if !slices.Contains(labels.Data, 17) || !slices.Contains(labels.Data, 53) {
		t.Error("there are no hippocampi among the labels")
	}
	if _, err := png.Decode(bytes.NewReader(read("preview.png"))); err != nil {
		t.Error(err)
	}
	if page := read("report.html"); !bytes.Contains(page, []byte("S-7")) || !bytes.Contains(page, []byte("data:image/png")) {
		t.Error("the report lacks the subject or the picture")
	}
}

// Refused scans end with exit code 3, a problem in JSON on standard output and
// no files.
func TestAnalyzeRefuses(t *testing.T) {
	scan, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := gzip.NewReader(bytes.NewReader(scan))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, file string
		content    []byte
		args       []string
		want       string // type of the problem, "" for any
	}{
		{"a child", "scan.nii.gz", scan, []string{"--age", "9"}, "under-18"},
		{"contrast agent", "scan.nii.gz", scan, []string{"--contrast"}, "contrast-agent"},
		{"empty", "scan.nii.gz", nil, nil, ""},
		{"a text", "scan.nii", []byte(strings.Repeat("not a scan\n", 100)), nil, "not-nifti"},
		{"cut short", "scan.nii.gz", scan[:len(scan)/2], nil, ""},
		{"all zeros", "scan.nii", append(slices.Clone(raw[:352]), make([]byte, len(raw)-352)...), nil, "empty-image"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			if err := os.WriteFile(path, test.content, 0o644); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(dir, "out")
			args := []string{"analyze", path, "--sex", "F", "--out", out}
			if !slices.Contains(test.args, "--age") {
				args = append(args, "--age", "70")
			}
			r := run(t, append(args, test.args...)...)
			if r.code != 3 {
				t.Fatalf("exit %d, want 3: %s%s", r.code, r.stdout, r.stderr)
			}
			var p struct {
				Type, Title, Detail string
				Status              int
				Reasons             []neuroscreen.Reason
			}
			if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
				t.Fatalf("%v: %s", err, r.stdout)
			}
			if p.Status != 422 || p.Detail == "" || len(p.Reasons) == 0 || test.want != "" && p.Type != "/problems/"+test.want {
				t.Errorf("problem %+v, want type %s", p, test.want)
			}
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Error("a refused scan must leave no folder behind")
			}
		})
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string // on standard error
	}{
		{"no command", nil, "expected"},
		{"unknown command", []string{"guess"}, "guess"},
		{"no age", []string{"analyze", head, "--sex", "F", "--out", "x"}, "--age"},
		{"no such sex", []string{"analyze", head, "--age", "70", "--sex", "X", "--out", "x"}, "--sex"},
		{"no such file", []string{"analyze", "nowhere.nii.gz", "--age", "70", "--sex", "F", "--out", "x"}, "nowhere.nii.gz"},
		{"no sex", []string{"analyze", head, "--age", "70", "--out", "x"}, "--sex"},
		{"no such modality", []string{"analyze", head, "--age", "70", "--sex", "F", "--out", "x", "--modality", "pet"}, "--modality"},
		{"a repetition time of a T1", []string{"analyze", head, "--age", "70", "--sex", "F", "--out", "x", "--tr", "2"}, "--tr"},
		{"no table", []string{"score"}, "--table"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if r := run(t, test.args...); r.code != 2 || !strings.Contains(r.stderr, test.want) {
				t.Errorf("exit %d, want 2 and %q on standard error: %s", r.code, test.want, r.stderr)
			}
		})
	}
	t.Run("help", func(t *testing.T) {
		if r := run(t, "--help"); r.code != 0 || !strings.Contains(r.stdout, "3 scan refused") {
			t.Errorf("exit %d; the help must state the exit codes: %s", r.code, r.stdout)
		}
	})
	t.Run("version", func(t *testing.T) {
		if r := run(t, "version"); r.code != 0 || strings.TrimSpace(r.stdout) == "" {
			t.Errorf("exit %d: %q", r.code, r.stdout)
		}
	})
	t.Run("no key", func(t *testing.T) {
		if r := run(t, "keys", "list"); r.code != 1 || !strings.Contains(r.stderr, "NEUROSCREEN_KEY") {
			t.Errorf("exit %d, want 1 and how to give a key: %s", r.code, r.stderr)
		}
	})
	t.Run("no service", func(t *testing.T) {
		if r := run(t, "keys", "list", "--key", "k", "--server", "http://127.0.0.1:1"); r.code != 1 || !strings.Contains(r.stderr, "--server") {
			t.Errorf("exit %d, want 1 and what to do: %s", r.code, r.stderr)
		}
	})
}

func TestMigrate(t *testing.T) {
	url := pgtest.ConnString(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public"); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"empty", "migrated"} {
		r := run(t, "migrate", "--database-url", url, "--data", t.TempDir())
		if r.code != 0 || !strings.Contains(r.stdout, "schema version") {
			t.Fatalf("%s database: exit %d: %s%s", state, r.code, r.stdout, r.stderr)
		}
		var scans int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM scans").Scan(&scans); err != nil {
			t.Errorf("%s database: %v", state, err)
		}
	}
}

const volumes = `id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus
small,75,F,1400000,2300,2400
usual,75,F,1400000,3600,3700
young,30,F,1400000,3600,3700
`

func TestScore(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "volumes.csv"), filepath.Join(dir, "scores.csv")
	if err := os.WriteFile(in, []byte(volumes), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "score", "--table", in, "--out", out, "--segmenter", "fs6"); r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at := func(row int, column string) string { return rows[row][slices.Index(rows[0], column)] }
	if len(rows) != 4 || at(1, "id") != "small" {
		t.Fatalf("rows %v", rows)
	}
	if flag := at(1, "alzheimers_flag"); flag != "flagged" {
		t.Errorf("small hippocampi are %q, want flagged", flag)
	}
	if flag := at(2, "alzheimers_flag"); flag != "none" {
		t.Errorf("usual hippocampi are %q, want none", flag)
	}
	if at(3, "alzheimers_abstained") == "" || at(3, "alzheimers_lr") != "" {
		t.Errorf("a person of 30 must not be scored for Alzheimer's disease: %v", rows[3])
	}
	if r := run(t, "score", "--table", in, "--segmenter", "fs6"); r.stdout != string(b) {
		t.Errorf("standard output differs from the file: %s", r.stdout)
	}

	t.Run("a wrong row changes nothing", func(t *testing.T) {
		if err := os.WriteFile(in, []byte(volumes+"broken,seventy,F,1,2,3\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		r := run(t, "score", "--table", in, "--out", out)
		if r.code != 1 || !strings.Contains(r.stderr, "line 5") {
			t.Errorf("exit %d, want 1 and the line: %s", r.code, r.stderr)
		}
		if now, err := os.ReadFile(out); err != nil || !bytes.Equal(now, b) {
			t.Errorf("the old scores are gone (%v)", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".neuroscreen-*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// fakeService answers as the real one does, after it has cut the first upload off.
type fakeService struct {
	t       *testing.T
	id      uuid.UUID
	end     neuroscreen.State
	reasons []neuroscreen.Reason
	posts   atomic.Int32
	keys    [2]string // idempotency keys of the posts
	scan    []byte
}

func (s *fakeService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer the-key" {
		s.t.Errorf("%s %s without the key", r.Method, r.URL)
	}
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	scan := client.Scan{ID: s.id, State: neuroscreen.Received, Reasons: []neuroscreen.Reason{}}
	path := "/v1/scans/" + s.id.String()
	switch r.Method + " " + r.URL.Path {
	case "POST /v1/scans":
		n := s.posts.Add(1)
		s.keys[min(n, 2)-1] = r.Header.Get("Idempotency-Key")
		if n == 1 {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				s.t.Error(err)
				return
			}
			conn.Close()
			return
		}
		parts, err := r.MultipartReader()
		if err != nil {
			s.t.Error(err)
			return
		}
		for _, want := range []string{"metadata", "scan"} {
			p, err := parts.NextPart()
			if err != nil || p.FormName() != want {
				s.t.Errorf("part %v (%v), want %s", p, err, want)
				return
			}
			b, err := io.ReadAll(p)
			if err != nil {
				s.t.Error(err)
			}
			if want == "scan" {
				s.scan = b
				sum := sha256.Sum256(b)
				if got, want := p.Header.Get("Content-Digest"), "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":"; got != want {
					s.t.Errorf("digest %s, want %s", got, want)
				}
			} else if !bytes.Contains(b, []byte(`"subject_id":"S-7"`)) {
				s.t.Errorf("metadata %s", b)
			}
		}
		answer(http.StatusAccepted, scan)
	case "GET " + path + "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		for n, state := range []neuroscreen.State{neuroscreen.Received, neuroscreen.Checked, s.end} {
			fmt.Fprintf(w, "id: %d\nevent: state\ndata: {\"state\":%q,\"at\":%q}\n\n", n+1, state, time.Unix(0, 0).UTC().Format(time.RFC3339))
		}
	case "GET " + path:
		scan.State, scan.Reasons = s.end, s.reasons
		answer(http.StatusOK, scan)
	case "GET " + path + "/result":
		lr := 3.2
		answer(http.StatusOK, neuroscreen.Result{Schema: neuroscreen.ResultSchema, ScanID: s.id.String(), SubjectID: "S-7",
			QC: neuroscreen.QC{Verdict: neuroscreen.VerdictPass},
			Scores: []neuroscreen.Score{{Condition: neuroscreen.Alzheimers, Evidence: neuroscreen.ExternalCohort, LikelihoodRatio: &lr,
				CI95: &[2]float64{1.1, 9.4}, Flag: neuroscreen.FlagReview}}})
	default:
		s.t.Errorf("unexpected %s %s", r.Method, r.URL)
		http.NotFound(w, r)
	}
}

func TestSubmit(t *testing.T) {
	limit, value := 3.0, 6.0
	tests := []struct {
		name           string
		end            neuroscreen.State
		reasons        []neuroscreen.Reason
		code           int
		stdout, stderr string
	}{
		{"scored", neuroscreen.Scored, nil, 0, "review, likelihood ratio 3.2 (95 % interval 1.1 to 9.4)", "checked"},
		{"refused", neuroscreen.Refused, []neuroscreen.Reason{{Code: "thick-slices", Text: "Slices of 6 mm.", Value: &value, Limit: &limit}}, 3, "/problems/thick-slices", "Slices of 6 mm."},
		{"failed", neuroscreen.Failed, []neuroscreen.Reason{{Code: "internal", Text: "A worker broke."}}, 1, "", "A worker broke."},
	}
	scan, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &fakeService{t: t, id: uuid.New(), end: test.end, reasons: test.reasons}
			server := httptest.NewServer(s)
			defer server.Close()
			keyFile := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(keyFile, []byte("the-key\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r := run(t, "submit", head, "--subject", "S-7", "--age", "45", "--sex", "M", "--wait", "--server", server.URL, "--key-file", keyFile)
			if r.code != test.code || !strings.Contains(r.stdout, test.stdout) || !strings.Contains(r.stderr, test.stderr) {
				t.Errorf("exit %d, want %d; standard output %q, want %q; standard error %q, want %q", r.code, test.code, r.stdout, test.stdout, r.stderr, test.stderr)
			}
			if !strings.Contains(r.stderr, "100 %") || !strings.Contains(r.stderr, "trying again") {
				t.Errorf("no progress or no word about the second attempt: %q", r.stderr)
			}
			if n := s.posts.Load(); n != 2 || s.keys[0] == "" || s.keys[0] != s.keys[1] {
				t.Errorf("%d posts under the keys %q; want two under one key", n, s.keys)
			}
			if !bytes.Equal(s.scan, scan) {
				t.Error("other bytes arrived")
			}
		})
	}
}

// TestSubmitRefusedAtOnce: what the service refuses to take ends as what it
// refuses later does.
func TestSubmitRefusedAtOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		io.WriteString(w, `{"type":"/problems/truncated","title":"The file ends too early","status":422,"detail":"send it again"}`)
	}))
	defer server.Close()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("the-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "submit", head, "--subject", "S-7", "--age", "45", "--sex", "M", "--server", server.URL, "--key-file", keyFile)
	if r.code != exitRefused || !strings.Contains(r.stdout, `"/problems/truncated"`) || !strings.Contains(r.stderr, "refused") {
		t.Errorf("exit %d; standard output %q, standard error %q", r.code, r.stdout, r.stderr)
	}
}

// TestAnalyzeReplaces: whatever way an analysis ends, the folder holds nothing
// of the one before, and what else lies there stays.
func TestAnalyzeReplaces(t *testing.T) {
	t.Parallel()
	scan, err := os.ReadFile(head)
	if err != nil {
		t.Fatal(err)
	}
	// folder holds another person's files, and one that is not ours.
	folder := func(t *testing.T) (dir, path string) {
		dir = t.TempDir()
		for _, name := range append([]string{"notes.txt"}, outputs...) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("another person"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		path = filepath.Join(dir, "scan.nii.gz")
		if err := os.WriteFile(path, scan, 0o644); err != nil {
			t.Fatal(err)
		}
		return dir, path
	}
	names := func(t *testing.T, dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}

	t.Run("a refusal", func(t *testing.T) {
		t.Parallel()
		dir, path := folder(t)
		if r := run(t, "analyze", path, "--age", "9", "--sex", "F", "--out", dir); r.code != exitRefused {
			t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
		}
		if got, want := names(t, dir), []string{"notes.txt", "scan.nii.gz"}; !slices.Equal(got, want) {
			t.Errorf("left %v, want %v", got, want)
		}
	})
	t.Run("a file that is no scan", func(t *testing.T) {
		t.Parallel()
		dir, path := folder(t)
		if err := os.WriteFile(path, []byte("no scan"), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := run(t, "analyze", path, "--modality", "bold", "--out", dir); r.code == 0 {
			t.Fatalf("exit 0: %s", r.stderr)
		}
		if got, want := names(t, dir), []string{"notes.txt", "scan.nii.gz"}; !slices.Equal(got, want) {
			t.Errorf("left %v, want %v", got, want)
		}
	})
	t.Run("a result", func(t *testing.T) {
		t.Parallel()
		dir, path := folder(t)
		if r := run(t, "analyze", path, "--age", "45", "--sex", "M", "--out", dir); r.code != 0 {
			t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
		}
		if got, want := names(t, dir), []string{"notes.txt", "preview.png", "report.html", "result.json", "scan.nii.gz", "segmentation.nii.gz"}; !slices.Equal(got, want) {
			t.Errorf("left %v, want %v", got, want)
		}
	})
	t.Run("what is read is not removed", func(t *testing.T) {
		t.Parallel()
		dir, path := folder(t)
		before := names(t, dir)
		t1 := filepath.Join(dir, "segmentation.nii.gz")
		r := run(t, "analyze", path, "--modality", "bold", "--t1", t1, "--out", dir)
		if r.code != 1 || !strings.Contains(r.stderr, "choose another folder") {
			t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
		}
		if got := names(t, dir); !slices.Equal(got, before) {
			t.Errorf("left %v, want %v", got, before)
		}
	})
}

// TestAnalyzeWritesResultLast: an error midway leaves no result.json.
func TestAnalyzeWritesResultLast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "report.html", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := analyzeCmd{Out: dir}
	var m neuroscreen.Metadata
	if err := c.write(&pipeline.Output{Result: &neuroscreen.Result{}, Segmentation: []byte("labels")}, m); err == nil {
		t.Fatal("no error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"preview.png", "report.html", "segmentation.nii.gz"}; !slices.Equal(names, want) {
		t.Errorf("left %v, want %v", names, want)
	}
}

// TestAnalyzeBOLD: a short run gives motion and quality, and its JSON file is
// heard when nothing else states the repetition time.
func TestAnalyzeBOLD(t *testing.T) {
	v := fmritest.Head(t)
	file := fmritest.Run(t, fmritest.Acquire(v, fmritest.Grid(v, 4)), 24, 2, nil)
	dir := t.TempDir()
	path := filepath.Join(dir, "run.nii.gz")
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	r := run(t, "analyze", path, "--modality", "bold", "--tr", "2.0", "--out", out)
	if r.code != 0 {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	b, err := os.ReadFile(filepath.Join(out, "result.json"))
	if err != nil {
		t.Fatal(err)
	}
	var result neuroscreen.Result
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&result); err != nil {
		t.Fatal(err)
	}
	if f := result.FMRI; result.Modality != neuroscreen.BOLD || f == nil || f.Frames != 24 || len(f.Motion.FDMM) != 24 || f.TRFrom != "metadata" {
		t.Errorf("result %.300s", b)
	}
	var line strings.Builder
	if err := printResult(&line, &result, client.Metadata{Sex: "F"}); err != nil || !strings.Contains(line.String(), "24 frames of 2 s, 0 of them outliers") {
		t.Errorf("%v: %s", err, line.String())
	}
	// 24 frames are too few for anything that is read from the signal.
	for name, want := range map[string]bool{"segmentation.nii.gz": true, "preview.png": true, "report.html": true, "carpet.png": true, "mean.nii.gz": true, "connectome.png": false, "maps.png": false, "alff.nii.gz": false} {
		if _, err := os.Stat(filepath.Join(out, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Labels of a T1 place it; a table of places that is wrong says where.
	if f := result.FMRI; f.Place.From != fmri.PlaceFromRun || f.Place.ToMNI == nil {
		t.Errorf("place %+v", f.Place)
	}
	through := filepath.Join(dir, "through")
	if r = run(t, "analyze", path, "--modality", "bold", "--out", through, "--t1", filepath.Join(out, "segmentation.nii.gz")); r.code != 0 {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if b, err = os.ReadFile(filepath.Join(through, "result.json")); err != nil || !bytes.Contains(b, []byte(`"from": "t1"`)) {
		t.Errorf("%v: the T1 was not used", err)
	}
	places := filepath.Join(dir, "places.csv")
	if err := os.WriteFile(places, []byte("name,x,y,z\nA,1,2,here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r = run(t, "analyze", path, "--modality", "bold", "--out", through, "--coordinates", places)
	if r.code != 1 || !strings.Contains(r.stderr, `places.csv: line 2: z is "here", which is no number`) {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if r = run(t, "analyze", path, "--age", "40", "--sex", "F", "--out", through, "--coordinates", places); r.code != 2 || !strings.Contains(r.stderr, "--coordinates is for --modality bold") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "run.json"), []byte(`{"RepetitionTime": 1.5}`), 0o644); err != nil {
		t.Fatal(err)
	}
	r = run(t, "analyze", path, "--modality", "bold", "--out", filepath.Join(dir, "two"))
	if r.code != 3 || !strings.Contains(r.stdout, "tr-ambiguous") {
		t.Errorf("exit %d, want a refusal for two repetition times: %s", r.code, r.stdout)
	}
}

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	put := func(path, text string) error {
		return replaceFile(path, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
	}
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := put(file, "old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if err := put(link, "new"); err != nil {
		t.Fatal(err)
	}
	at, err := os.Lstat(link)
	if got, _ := os.ReadFile(file); string(got) != "new" || err != nil || at.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%q behind a link that is now %v, %v", got, at.Mode(), err)
	}
	failed := errors.New("failed")
	if err := replaceFile(file, func(w io.Writer) error { io.WriteString(w, "half"); return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "new" {
		t.Errorf("%q after a failure", got)
	}

	// As /dev/stdout would be: written to, and there afterwards.
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		b, _ := os.ReadFile(pipe)
		read <- string(b)
	}()
	if err := put(pipe, "through"); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got != "through" {
		t.Errorf("%q came through", got)
	}
	if at, err := os.Lstat(pipe); err != nil || at.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is %v now, %v", at, err)
	}
}

func TestGiveName(t *testing.T) {
	dir := t.TempDir()
	part, name := filepath.Join(dir, "a.partial"), filepath.Join(dir, "a")
	if err := os.WriteFile(part, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := giveName(part, name); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(name); string(got) != "whole" {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(part); err == nil {
		t.Error("the part is there still")
	}
	if err := os.WriteFile(part, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := giveName(part, name); err == nil {
		t.Error("a file was replaced")
	}
	if _, err := os.Stat(part); err != nil {
		t.Error("a whole archive is gone:", err)
	}
}
