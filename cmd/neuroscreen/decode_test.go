package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/fmri/fmritest"
	"neuroscreen/internal/nifti"
)

// TestDecode: a head whose front answers one condition and whose back the
// other.
func TestDecode(t *testing.T) {
	const tr, frames, runs = 2.0, 96, 4
	v := fmritest.Head(t)
	still := fmritest.Acquire(v, fmritest.Grid(v, 6))
	// In each run of 24 volumes four events of 6 s, every 12 s.
	table := "onset\tduration\ttrial_type\trun\n"
	for n := range 4 * runs {
		table += fmt.Sprintf("%d\t6\t%s\t%d\n", 12*n, []string{"front", "back", "back", "front"}[n%4], n/4+1)
	}
	ny := still.Shape[1]
	answer := func(n int, x []float32) {
		event, within := n/6, n%6
		if within < 2 || within > 4 { // 4 s later, for 6 s
			return
		}
		front := event%4 == 0 || event%4 == 3
		for at := range x {
			if y := at / still.Shape[0] % ny; front == (y > ny/2) {
				x[at] *= 1.01
			}
		}
	}
	file := fmritest.Run(t, still, frames, tr, answer)
	dir := t.TempDir()
	path, events := filepath.Join(dir, "run.nii.gz"), filepath.Join(dir, "events.tsv")
	for name, b := range map[string]string{path: string(file), events: table} {
		if err := os.WriteFile(name, []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "out")
	r := run(t, "decode", "--bold", path, "--events", events, "--lag", "4", "--voxels", "100", "--permutations", "40", "--out", out)
	if r.code != 0 || r.stdout != "" {
		t.Fatalf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	b, err := os.ReadFile(filepath.Join(out, "decoding.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d neuroscreen.Decoding
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.Accuracy < 0.9 || d.Chance != 0.5 || d.P == nil || *d.P > 0.1 || d.Samples != 16 || !slices.Equal(d.Conditions, []string{"back", "front"}) || len(d.RunAccuracy) != runs || len(d.Files) != 1 || !d.Files[0].Realigned {
		t.Errorf("decoding %s", b)
	}
	w, err := nifti.ReadFile(filepath.Join(out, "weights.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if want := append(still.Shape[:], 2); !slices.Equal(w.Shape, want) {
		t.Fatalf("weights of shape %v, want %v", w.Shape, want)
	}
	// "front" weighs the front half up and the back half down.
	half := [2]float64{}
	for at, x := range w.Data[still.Len():] {
		if y := at / still.Shape[0] % ny; y > ny/2 {
			half[1] += float64(x)
		} else {
			half[0] += float64(x)
		}
	}
	if !(half[1] > 0 && half[0] < 0) {
		t.Errorf("weights of the front sum to %g in the front half, %g in the back half", half[1], half[0])
	}

	t.Run("several files", func(t *testing.T) {
		// Two runs each, in a table without the column run: a file is one.
		args := []string{"decode", "--lag", "4", "--voxels", "100", "--permutations", "0"}
		for n := range 2 {
			bold, events := filepath.Join(dir, fmt.Sprintf("run%d.nii.gz", n)), filepath.Join(dir, fmt.Sprintf("events,%d.tsv", n))
			table := "onset\tduration\ttrial_type\n"
			for e := range 8 {
				table += fmt.Sprintf("%d\t6\t%s\n", 12*e, []string{"front", "back", "back", "front"}[e%4])
			}
			b := fmritest.Run(t, still, frames/2, tr, func(at int, x []float32) {
				answer(at+n*frames/2, x)
				x[0] += float32(100 * n) // in other air
			})
			for name, b := range map[string][]byte{bold: b, events: []byte(table)} {
				if err := os.WriteFile(name, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			args = append(args, "--bold", bold, "--events", events)
		}
		r := run(t, args...)
		var d neuroscreen.Decoding
		if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
			t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
		}
		if d.Accuracy < 0.9 || !slices.Equal(d.Runs, []string{"1", "2"}) || len(d.Files) != 2 || !d.Files[1].Realigned || d.Files[0].SHA256 == d.Files[1].SHA256 || d.P != nil || d.Samples != 16 {
			t.Errorf("decoding %s", r.stdout)
		}
		if r := run(t, append(args, args[len(args)-4:]...)...); r.code != 3 || !strings.Contains(r.stdout, "file-twice") {
			t.Errorf("exit %d: %s", r.code, r.stdout)
		}
		if r := run(t, args[:len(args)-2]...); r.code != 2 || !strings.Contains(r.stderr, "every file needs its events") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	})
	t.Run("one run", func(t *testing.T) {
		one := filepath.Join(dir, "one.tsv")
		if err := os.WriteFile(one, []byte("onset\tduration\ttrial_type\n0\t6\ta\n12\t6\tb\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := run(t, "decode", "--bold", path, "--events", one); r.code != 3 || !strings.Contains(r.stdout, "too-few-events") {
			t.Errorf("exit %d: %s", r.code, r.stdout)
		}
	})
	t.Run("a table of something else", func(t *testing.T) {
		if r := run(t, "decode", "--bold", path, "--events", path); r.code != 3 || !strings.Contains(r.stdout, "events-invalid") {
			t.Errorf("exit %d: %s", r.code, r.stdout)
		}
	})
}
