package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen/internal/fmri"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// movedVolumes are files of one volume each; from the given one on the head lies
// mm further to the right.
func movedVolumes(t testing.TB, n, from int, mm float64) [][]byte {
	t.Helper()
	head := fmritest.Head(t)
	g := fmritest.Grid(head, 6)
	places := [2]*volume.Volume{fmritest.Acquire(head, g), nil}
	moved := g
	moved.Affine[0][3] -= mm // what lay there is seen here
	places[1] = fmritest.Acquire(head, moved)
	files := make([][]byte, n)
	for i := range files {
		still := places[0]
		if i >= from {
			still = places[1]
		}
		data := make([]int16, g.Len())
		for at, x := range still.Data {
			data[at] = int16(x) + int16((i*7919+at*31)%5)
		}
		var b bytes.Buffer
		if err := nifti.Write(&b, nifti.Geometry{Shape: g.Shape[:], Affine: nifti.Affine(g.Affine), Code: 1}, data); err != nil {
			t.Fatal(err)
		}
		files[i] = b.Bytes()
	}
	return files
}

func put(t testing.TB, b []byte, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWatch: volumes appear, one of them slowly, one out of order, and the head
// moves once.
func TestWatch(t *testing.T) {
	files := movedVolumes(t, 24, 12, 2)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "watch", dir, "--tr", "2", "--expect", "24", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	name := func(n int) string { return filepath.Join(dir, fmt.Sprintf("vol%d.nii.gz", n+1)) } // vol10 comes after vol9
	put(t, []byte("no volume"), dir, "notes.txt")
	for n := range 9 {
		put(t, files[n], name(n))
	}
	put(t, files[9][:2000], name(9)) // is being written, and holds up those after it
	for n := 10; n < 24; n++ {
		put(t, files[n], name(n))
	}
	time.Sleep(150 * time.Millisecond)
	put(t, files[9], name(9))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var lines []watchLine
	dec := json.NewDecoder(&stdout)
	for dec.More() {
		var l watchLine
		if err := dec.Decode(&l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	if len(lines) != 25 {
		t.Fatalf("%d lines, want 24 and one at the end", len(lines))
	}
	for n, l := range lines[:24] {
		v := l.Volume
		if v == nil || v.Volume != n+1 || l.File != filepath.Base(name(n)) {
			t.Fatalf("line %d: %+v", n, l)
		}
		want := 0.0
		if n == 12 {
			want = 2
		}
		if math.Abs(v.FDMM-want) > 0.1 || v.Outlier != (n == 12) {
			t.Errorf("volume %d: FD %.3f, outlier %v, want FD %g", n+1, v.FDMM, v.Outlier, want)
		}
	}
	s := lines[24].Summary
	if lines[24].Ended != "done" || s.Volumes != 24 || s.OutlierFrames != 1 || s.TSNR == nil || math.Abs(s.UsableMinutes-23*2.0/60) > 1e-9 || !s.Repeat {
		t.Errorf("at the end %+v", lines[24])
	}

	t.Run("as text, interrupted", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), program, "watch", dir, "--tr", "2")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		b := make([]byte, 4096)
		for strings.Count(text.String(), "usable") < 24 {
			n, err := out.Read(b)
			if err != nil {
				t.Fatalf("%v: %s", err, text.String())
			}
			text.Write(b[:n])
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		rest := new(bytes.Buffer)
		if _, err := rest.ReadFrom(out); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		for _, want := range []string{"interrupted after 24 volumes", "outlier frames  1 of 24", "should be repeated"} {
			if !strings.Contains(rest.String(), want) {
				t.Errorf("%q lacks %q", rest.String(), want)
			}
		}
	})
}

// TestWatcherLeavesOut what is no volume of the run, once it has not grown for
// some time.
func TestWatcherLeavesOut(t *testing.T) {
	files := movedVolumes(t, 3, 3, 0)
	dir := t.TempDir()
	var out bytes.Buffer
	r := &watcher{dir: dir, out: &out, json: true, watch: fmri.NewWatch(2, 0), known: map[string]bool{}, said: map[string]bool{}}
	now := time.Now()
	look := func(after time.Duration) bool {
		t.Helper()
		more, err := r.look(now.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return more
	}
	put(t, files[0], dir, "v2.nii.gz")
	if !look(0) || r.taken != 1 {
		t.Fatal("the first volume was not taken")
	}
	put(t, files[1][:1000], dir, "v3.nii.gz")
	put(t, files[2], dir, "v4.nii.gz")
	if look(0) || look(time.Second) || r.taken != 1 {
		t.Error("a file that is not whole was taken or given up")
	}
	if !look(giveUpAfter+time.Second) || !r.known["v3.nii.gz"] || r.taken != 1 {
		t.Error("a damaged file holds up the others for ever")
	}
	if !look(giveUpAfter+2*time.Second) || r.taken != 2 {
		t.Error("the file after it was not taken")
	}
	put(t, files[1], dir, "v1.nii.gz")
	if !look(giveUpAfter+3*time.Second) || !r.known["v1.nii.gz"] || r.taken != 2 {
		t.Error("a volume that comes before others was taken after them")
	}
	run := fmritest.Run(t, volume.New(volume.Grid{Shape: [3]int{4, 4, 4}, Affine: volume.Identity}), 2, 2, nil)
	put(t, run, dir, "v5.nii.gz")
	if !look(giveUpAfter+4*time.Second) || !r.known["v5.nii.gz"] || r.taken != 2 {
		t.Error("a file of two volumes was taken for one")
	}
	var flat bytes.Buffer
	if err := nifti.Write(&flat, nifti.Geometry{Shape: []int{8, 8, 8}, Affine: nifti.Affine{{3}, {0, 3}, {}, {0, 0, 0, 1}}}, make([]int16, 512)); err != nil {
		t.Fatal(err)
	}
	put(t, flat.Bytes(), dir, "v6.nii.gz")
	if !look(giveUpAfter+5*time.Second) || !r.known["v6.nii.gz"] || r.taken != 2 {
		t.Error("a volume without a usable affine was taken")
	}
	if look(giveUpAfter + 6*time.Second) {
		t.Error("there is nothing more")
	}
}

func TestByNumber(t *testing.T) {
	want := []string{"a", "a01", "a1", "a2", "a09", "a10", "a10b", "b1_2", "b1_10", "b02_1"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, byNumber)
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, a := range want {
		for _, b := range want {
			if byNumber(a, b) != -byNumber(b, a) || (byNumber(a, b) == 0) != (a == b) {
				t.Errorf("%q and %q", a, b)
			}
		}
	}
}
