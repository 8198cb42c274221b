package fmri

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
)

func samplesOf(x []float32, voxels int, class, run []int) *Samples {
	s := &Samples{Class: class, Run: run}
	for row := range slices.Chunk(x, voxels) {
		s.X = append(s.X, row)
	}
	for c := range slices.Max(class) + 1 {
		s.Conditions = append(s.Conditions, fmt.Sprint("condition ", c))
	}
	for r := range slices.Max(run) + 1 {
		s.Runs = append(s.Runs, fmt.Sprint(r))
	}
	return s
}

// TestDecodeEqualsScikitLearn: the same answers event by event, the same
// weights.
func TestDecodeEqualsScikitLearn(t *testing.T) {
	f := load(t).Decoding
	d, err := Decode(context.Background(), samplesOf(f.X, f.Voxels, f.Class, f.Run), DecodeOptions{Voxels: f.Keep, Permutations: -1})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Predicted, f.Predicted) {
		t.Errorf("told %v, scikit-learn %v", d.Predicted, f.Predicted)
	}
	if fmt.Sprint(d.Confusion) != fmt.Sprint(f.Confusion) {
		t.Errorf("confusion %v, want %v", d.Confusion, f.Confusion)
	}
	wantClose(t, "weights", slices.Concat(d.Weights...), f.Weights, 1e-4)
	if d.P != 1 || d.Permutations != 0 || math.Abs(d.Accuracy-mean(d.Fold)) > 1e-9 || d.Voxels != f.Keep {
		t.Errorf("p %g of %d, accuracy %g, folds %v", d.P, d.Permutations, d.Accuracy, d.Fold)
	}
}

// TestDecodeShuffledIsAtChance: what selection and classifier find in noise,
// and in permuted labels, is nothing.
func TestDecodeShuffledIsAtChance(t *testing.T) {
	const runs, classes, times, voxels = 6, 4, 4, 400
	var class, run []int
	for r := range runs {
		for i := range classes * times {
			class, run = append(class, i%classes), append(run, r)
		}
	}
	t.Run("noise", func(t *testing.T) {
		s := samplesOf(noise(len(class)*voxels, 0, 1, 9), voxels, class, run)
		d, err := Decode(context.Background(), s, DecodeOptions{Voxels: 30, Permutations: 60})
		if err != nil {
			t.Fatal(err)
		}
		// Five standard errors of a quarter in 96.
		if math.Abs(d.Accuracy-0.25) > 0.22 || d.P < 0.01 {
			t.Errorf("accuracy %.2f, p %.3f of noise", d.Accuracy, d.P)
		}
		// The mean of 60 permutations is far more exact.
		if math.Abs(d.Shuffled-0.25) > 0.03 {
			t.Errorf("permuted labels are told with %.3f, chance is .25", d.Shuffled)
		}
	})
	t.Run("signal", func(t *testing.T) {
		x := noise(len(class)*voxels, 0, 1, 10)
		for i, c := range class {
			for v := range 20 {
				x[i*voxels+20*c+v] += 1
			}
		}
		d, err := Decode(context.Background(), samplesOf(x, voxels, class, run), DecodeOptions{Voxels: 80, Permutations: 20})
		if err != nil {
			t.Fatal(err)
		}
		if d.Accuracy < 0.8 || d.P > 1.0/21+1e-9 || math.Abs(d.Shuffled-0.25) > 0.05 {
			t.Errorf("accuracy %.2f, p %.3f, shuffled %.3f", d.Accuracy, d.P, d.Shuffled)
		}
		again, err := Decode(context.Background(), samplesOf(x, voxels, class, run), DecodeOptions{Voxels: 80, Permutations: 20})
		if err != nil || again.Shuffled != d.Shuffled {
			t.Errorf("the same seed shuffled otherwise: %v", err)
		}
	})
	t.Run("a run of one condition", func(t *testing.T) {
		s := samplesOf(noise(4*voxels, 0, 1, 1), voxels, []int{0, 1, 1, 1}, []int{0, 0, 1, 1})
		_, err := Decode(context.Background(), s, DecodeOptions{})
		wantRefusal(t, err, TooFewEvents, "events")
	})
}

func TestReadEvents(t *testing.T) {
	events, err := ReadEvents(strings.NewReader("trial_type\tonset\trun\tduration\r\nhouse\t20\t1\t10\r\nface\t4.5\t1\t10\r\n\r\nrest\t40\t2\t0\r\n"))
	want := []Event{ev(4.5, 10, "face", "1"), ev(20, 10, "house", "1"), ev(40, 0, "rest", "2")}
	if err != nil || !slices.Equal(events, want) {
		t.Errorf("%v, %v", events, err)
	}
	for name, table := range map[string]string{
		"empty":             "",
		"no line ends":      strings.Repeat("x", 1<<17),
		"commas":            "onset,duration,trial_type\n1,2,a\n",
		"no condition":      "onset\tduration\n1\t2\n",
		"words for numbers": "onset\tduration\ttrial_type\nsoon\t2\ta\n",
		"not a number":      "onset\tduration\ttrial_type\nNaN\t2\ta\n",
		"negative duration": "onset\tduration\ttrial_type\n1\t-2\ta\n",
		"a cell too few":    "onset\tduration\ttrial_type\n1\t2\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadEvents(strings.NewReader(table))
			wantRefusal(t, err, EventsInvalid, "events")
		})
	}
}

func TestMakeSamples(t *testing.T) {
	const frames = 40
	data := make([]float32, 2*frames)
	for n := range frames {
		data[n] = float32(100 + n%2)        // no trend, SD .5
		data[frames+n] = float32(100 + 3*n) // a trend and nothing else
	}
	s := seriesOf(frames, data)
	r := &Run{TR: TR{Seconds: 2}, Dummies: 1, Frames: frames}
	events := []Event{ev(2, 4, "a", "1"), ev(20, 2, "b", "1"), ev(30, 2, "rest", "1"), ev(50, 2, "b", "2"), ev(60, 0, "a", "2")}
	got, err := MakeSamples(s, r, events, []string{"rest"}, 4)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Conditions, []string{"a", "b"}) || !slices.Equal(got.Class, []int{0, 1, 1, 0}) || !slices.Equal(got.Run, []int{0, 0, 1, 1}) {
		t.Errorf("%+v", got)
	}
	// The first event's frames begin at 6 and 8 s: volumes 3 and 4 of the file,
	// frames 2 and 3. The others have one frame each: 11, 26 and 31.
	for i, want := range []float64{0, 1, -1, 1} {
		if math.Abs(float64(got.X[i][0])-want) > 0.2 {
			t.Errorf("sample %d is %g, want about %g", i, got.X[i][0], want)
		}
		if got.X[i][1] != 0 {
			t.Errorf("a trend left %g", got.X[i][1])
		}
	}
	for _, c := range []struct {
		name    string
		dummies int
		events  []Event
	}{
		{"beyond the end", 1, []Event{ev(2, 4, "a", "1"), ev(40, 2, "b", "2"), ev(78, 20, "a", "2")}},
		{"before the first volume that is kept", 3, []Event{ev(0, 2, "a", "1"), ev(20, 2, "b", "1"), ev(50, 2, "b", "2"), ev(60, 2, "a", "2")}},
		{"runs that overlap", 1, []Event{ev(2, 4, "a", "1"), ev(10, 2, "b", "2"), ev(20, 2, "a", "1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Run{TR: TR{Seconds: 2}, Dummies: c.dummies, Frames: frames}
			_, err := MakeSamples(s, r, c.events, nil, 4)
			wantRefusal(t, err, EventsInvalid, "events")
		})
	}
	t.Run("begins in a dropped volume", func(t *testing.T) {
		// Volumes 2 to 4 of the file, of which frames 0 and 1 are left.
		r := &Run{TR: TR{Seconds: 2}, Dummies: 3, Frames: frames}
		got, err := MakeSamples(s, r, []Event{ev(0, 6, "a", "1"), ev(20, 2, "b", "1")}, nil, 4)
		if err != nil || math.Abs(float64(got.X[0][0])) > 0.2 {
			t.Errorf("%v; the mean of two frames is %v", err, got)
		}
	})
}

func TestCheckEvents(t *testing.T) {
	one, two := []Event{ev(2, 4, "a", ""), ev(20, 2, "b", "")}, []Event{ev(2, 4, "a", "1"), ev(40, 2, "a", "2"), ev(50, 2, "rest", "2")}
	for _, c := range []struct {
		name  string
		files [][]Event
		field string
	}{
		{"nothing", nil, "run"},
		{"one run", [][]Event{one}, "run"},
		{"one condition", [][]Event{two}, "trial_type"},
		{"a file of rest alone is no run", [][]Event{one, {ev(2, 4, "rest", "")}}, "run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantRefusal(t, CheckEvents(c.files, []string{"rest"}), TooFewEvents, c.field)
		})
	}
	if err := CheckEvents([][]Event{one, two}, []string{"rest"}); err != nil {
		t.Errorf("two files: %v", err)
	}
}

// realEvents turns the shared run's list of a label and a run for each volume
// into a table of events.
func realEvents(t testing.TB) []Event {
	t.Helper()
	b, err := os.ReadFile(testdata.Shared(t, "scans", "bold", "pymvpa_attributes_literal.txt"))
	if err != nil {
		t.Fatal(err)
	}
	const tr = 2.5
	table := "onset\tduration\ttrial_type\trun\n"
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for n := 0; n < len(lines); {
		end := n
		for end < len(lines) && lines[end] == lines[n] {
			end++
		}
		f := strings.Fields(lines[n])
		if f[0] != "rest" {
			table += fmt.Sprintf("%g\t%g\t%s\t%s\n", tr*float64(n), tr*float64(end-n), f[0], f[1])
		}
		n = end
	}
	events, err := ReadEvents(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// TestDecodeRealRun: eight kinds of pictures, twelve runs, one slice.
// testdata/decode_pymvpa.py has scikit-learn's accuracy.
func TestDecodeRealRun(t *testing.T) {
	const scikit = 0.8021 // of 96 events
	f, err := os.Open(testdata.Shared(t, "scans", "bold", "pymvpa_bold.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rd, err := nifti.NewReader(f, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r, err := Read(ctx, rd, TR{Seconds: 2.5})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g := NewGatherer(nil, 5)
	aligned, err := g.Add(ctx, r, realEvents(t))
	if err != nil {
		t.Fatal(err)
	}
	samples, voxels, err := g.Samples()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Decode(ctx, samples, DecodeOptions{Permutations: 50})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, %d dummies, %d voxels, aligned %v: accuracy %.4f, p %.3f, shuffled %.3f (chance .125)", samples, r.Dummies, len(voxels), aligned, d.Accuracy, d.P, d.Shuffled)
	if math.Abs(d.Accuracy-scikit) > 0.01 {
		t.Errorf("accuracy %.4f, scikit-learn's is %.4f", d.Accuracy, scikit)
	}
	if d.P > 1.0/51+1e-9 || math.Abs(d.Shuffled-0.125) > 0.03 {
		t.Errorf("p %.3f; permuted labels are told with %.3f", d.P, d.Shuffled)
	}
}

func ev(onset, duration float64, kind, run string) Event {
	return Event{Onset: onset, Duration: duration, Type: kind, Run: run}
}
