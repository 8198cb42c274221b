package fmri

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"neuroscreen"
)

// Stable codes of what stops decoding.
const (
	EventsInvalid = "events-invalid"
	TooFewEvents  = "too-few-events"
)

// Event of a task.
type Event = neuroscreen.Event

func eventsError(format string, args ...any) error {
	return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, EventsInvalid, "events", format, args...)
}

// ReadEvents reads a BIDS events.tsv: columns onset, duration and trial_type, in
// any order, and run for a file that holds several runs one after the other.
// Events come back in the order of their onset.
//
// Errors: CodeUnprocessable EventsInvalid; the reader's.
func ReadEvents(r io.Reader) ([]Event, error) {
	sc := bufio.NewScanner(r)
	failed := func() error {
		if errors.Is(sc.Err(), bufio.ErrTooLong) {
			return eventsError("the events are no table: a line has no end")
		}
		return sc.Err()
	}
	if !sc.Scan() {
		if err := failed(); err != nil {
			return nil, err
		}
		return nil, eventsError("the table of events is empty")
	}
	column := map[string]int{}
	names := strings.Split(strings.TrimPrefix(strings.TrimRight(sc.Text(), "\r"), "\ufeff"), "\t")
	for n, name := range names {
		column[strings.TrimSpace(name)] = n
	}
	for _, name := range []string{"onset", "duration", "trial_type"} {
		if _, ok := column[name]; !ok {
			return nil, eventsError("the table of events has no column %s; it must be separated by tabs and begin with the names of its columns", name)
		}
	}
	var events []Event
	for line := 2; sc.Scan(); line++ {
		if strings.TrimSpace(sc.Text()) == "" {
			continue
		}
		cells := strings.Split(strings.TrimRight(sc.Text(), "\r"), "\t")
		if len(cells) != len(names) {
			return nil, eventsError("line %d of the events has %d columns, the first line %d", line, len(cells), len(names))
		}
		var e Event
		for _, f := range []struct {
			name string
			to   *float64
		}{{"onset", &e.Onset}, {"duration", &e.Duration}} {
			v, err := strconv.ParseFloat(strings.TrimSpace(cells[column[f.name]]), 64)
			if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || f.name == "duration" && v < 0 {
				return nil, eventsError("line %d of the events: the %s is no number of seconds", line, f.name)
			}
			*f.to = v
		}
		e.Type = strings.TrimSpace(cells[column["trial_type"]])
		if n, ok := column["run"]; ok {
			e.Run = strings.TrimSpace(cells[n])
		}
		events = append(events, e)
	}
	if err := failed(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Onset, b.Onset) })
	return events, nil
}

// Samples are patterns of activity, one an event.
type Samples struct {
	X          [][]float32 // of each sample, the voxels of the series
	Class      []int       // of each sample, into Conditions
	Run        []int       // of each sample, into Runs
	Conditions []string    // ascending
	Runs       []string    // in the order of time
}

// CheckEvents refuses events from which nothing can be learnt, before any volume
// is read: those of all files together must be of two runs and of two
// conditions. A file without a column run is one.
//
// Errors: CodeUnprocessable TooFewEvents.
func CheckEvents(files [][]Event, ignore []string) error {
	runs, conditions := map[string]bool{}, map[string]bool{}
	for n, events := range files {
		for _, e := range events {
			if !slices.Contains(ignore, e.Type) {
				runs[fmt.Sprintf("%d/%s", n, e.Run)], conditions[e.Type] = true, true
			}
		}
	}
	if len(runs) < 2 {
		return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, TooFewEvents, "run",
			"the events are of %d run; decoding learns from some runs and is tested on another, so that several files are needed or a column run that tells at least two apart", len(runs))
	}
	if len(conditions) < 2 {
		return neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, TooFewEvents, "trial_type",
			"the events are of %d condition; at least two are needed", len(conditions))
	}
	return nil
}

// MakeSamples averages, for each event of a file, the frames that begin lag seconds after
// it does and while it lasts; at least the first. Before, each voxel loses its
// linear trend within a run and is scaled to variance 1 there: that looks at no
// label and at no other run. A run reaches halfway to the next one's first
// event. Events of the ignored types only help to find the runs.
//
// Errors: CodeUnprocessable EventsInvalid.
func MakeSamples(s *Series, r *Run, events []Event, ignore []string, lag float64) (*Samples, error) {
	out := &Samples{}
	var first, last []float64 // of each run, where its events begin and end
	runOf := map[string]int{}
	for _, e := range events {
		n, ok := runOf[e.Run]
		if !ok {
			n = len(out.Runs)
			runOf[e.Run] = n
			out.Runs, first, last = append(out.Runs, e.Run), append(first, e.Onset), append(last, 0)
		}
		if n != len(out.Runs)-1 {
			return nil, eventsError("the runs overlap: an event of run %q lies after one of run %q", e.Run, out.Runs[len(out.Runs)-1])
		}
		last[n] = max(last[n], e.Onset+e.Duration)
		if !slices.Contains(ignore, e.Type) && !slices.Contains(out.Conditions, e.Type) {
			out.Conditions = append(out.Conditions, e.Type)
		}
	}
	slices.Sort(out.Conditions)

	// frame returns the first frame that begins at or after a time; dropped dummy
	// scans are those before 0.
	frame := func(seconds float64) int {
		return min(int(math.Ceil(seconds/r.TR.Seconds-1e-6))-r.Dummies, s.Frames)
	}
	bounds := []int{0}
	for n := 1; n < len(out.Runs); n++ {
		bounds = append(bounds, max(frame((last[n-1]+first[n])/2), 0))
	}
	bounds = append(bounds, s.Frames)
	type span struct{ from, to int }
	var spans []span
	for _, e := range events {
		if slices.Contains(ignore, e.Type) {
			continue
		}
		n := runOf[e.Run]
		if bounds[n+1]-bounds[n] < 3 {
			return nil, eventsError("run %q has fewer than three volumes", e.Run)
		}
		sp := span{frame(e.Onset + lag), min(frame(e.Onset+e.Duration+lag), bounds[n+1])}
		sp.to = max(sp.to, sp.from+1)
		if e.Onset < 0 || sp.to <= 0 || sp.to > bounds[n+1] {
			return nil, eventsError("the event at %g s lies outside the volumes of its run, with a lag of %g s and %d dummy scans dropped", e.Onset, lag, r.Dummies)
		}
		sp.from = max(sp.from, 0)
		spans = append(spans, sp)
		out.Class = append(out.Class, slices.Index(out.Conditions, e.Type))
		out.Run = append(out.Run, n)
		out.X = append(out.X, make([]float32, len(s.Voxels)))
	}
	parts(len(s.Voxels), func(_, from, to int) {
		x := make([]float64, s.Frames)
		for v := from; v < to; v++ {
			for t, y := range s.Voxel(v) {
				x[t] = float64(y)
			}
			for n := range out.Runs {
				standardise(x[bounds[n]:bounds[n+1]])
			}
			for i, sp := range spans {
				sum := 0.0
				for _, y := range x[sp.from:sp.to] {
					sum += y
				}
				out.X[i][v] = float32(sum / float64(sp.to-sp.from))
			}
		}
	})
	return out, nil
}

// standardise takes out mean and linear trend and scales to variance 1 (by n);
// a series without variance becomes 0.
func standardise(x []float64) {
	if len(x) < 3 {
		return
	}
	line := legendre(len(x), 1)
	c := project(x, line)
	ss := 0.0
	for t := range x {
		x[t] -= c[0] + c[1]*line[1][t]
		ss += x[t] * x[t]
	}
	sd := math.Sqrt(ss / float64(len(x)))
	if sd <= 1e-6*math.Abs(c[0]) || sd == 0 {
		clear(x)
		return
	}
	for t := range x {
		x[t] /= sd
	}
}

// String tells what was sampled.
func (s *Samples) String() string {
	return fmt.Sprintf("%d samples of %d conditions in %d runs", len(s.X), len(s.Conditions), len(s.Runs))
}
