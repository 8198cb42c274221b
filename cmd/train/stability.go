package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"gonum.org/v1/gonum/stat"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
	"neuroscreen/internal/volume"
)

type stabilityCmd struct {
	data
	chosen
	Real    string `help:"Folder of real heads." default:"../shared/data/scans/t1"`
	Heads   int    `help:"Real heads, and synthetic ones, at most; 0 is all." default:"0"`
	Seed    uint64 `help:"Of synthetic heads, bias fields and noise." default:"1"`
	Threads int    `help:"Threads; 0 uses every core." default:"0"`
}

// realHeads are whole and stripped heads of four studies; bert, of a fifth, is
// FreeSurfer's.
var realHeads = []string{
	"chris_t1.nii.gz", "t1_crop.nii.gz", "bert_brain.mgz",
	"ds000011_sub-01_T1w.nii.gz", "ds000011_sub-02_T1w.nii.gz", "ds002748_sub-01_T1w.nii.gz", "ds002748_sub-03_T1w.nii.gz",
}

// atrophyDraws heads of each map lose hippocampus, every other one mirrored.
const atrophyDraws = 3

func (c *stabilityCmd) Run(ctx context.Context) error {
	w, err := c.read()
	if err != nil {
		return err
	}
	maps, err := c.load(heldOut...)
	if err != nil {
		return err
	}
	n := segment.New(w, c.Threads)
	var heads []*train.HeadStability
	for _, name := range c.limited(realHeads) {
		v, err := train.ReadScan(filepath.Join(c.Real, name))
		if errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "%s is not there\n", name)
			continue
		}
		if err != nil {
			return err
		}
		h, err := train.Perturb(ctx, n, name, v, nil, c.Seed)
		if err != nil {
			return err
		}
		heads = append(heads, h)
		fmt.Fprintf(os.Stderr, "%s done\n", name)
	}
	var shrunk []*train.Atrophy
	for _, name := range c.limited(heldOut) {
		o := synth.HeadOptions{Map: name, Seed: c.Seed, BendMM: 2, NoiseSD: 3, BiasSD: .1}
		redraw := func(change func(*synth.HeadOptions)) (*volume.Volume, error) {
			other := o
			change(&other)
			v, _, err := maps.Head(other)
			return v, err
		}
		v, err := redraw(func(*synth.HeadOptions) {})
		if err != nil {
			return err
		}
		h, err := train.Perturb(ctx, n, "map "+name, v, redraw, c.Seed)
		if err != nil {
			return err
		}
		heads = append(heads, h)
		for draw := range uint64(atrophyDraws) {
			o.Seed, o.Mirrored = c.Seed+draw, draw%2 == 1
			a, err := train.MeasureAtrophy(ctx, n, maps, o)
			if err != nil {
				return err
			}
			shrunk = append(shrunk, a)
		}
		fmt.Fprintf(os.Stderr, "map %s done\n", name)
	}
	return report(w, heads, shrunk)
}

func (c *stabilityCmd) limited(names []string) []string {
	if c.Heads > 0 && c.Heads < len(names) {
		return names[:c.Heads]
	}
	return names
}

func report(weights *segment.Weights, heads []*train.HeadStability, shrunk []*train.Atrophy) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s; changes of volumes in per cent, median and worst\n", describe(weights))
	fmt.Fprintf(w, "perturbation\theads\thippocampus\t\tmean of 31\t\tintracranial\t\taim\t\n")
	wrong := 0
	for _, h := range heads {
		wrong += h.WrongSide
	}
	for _, p := range train.Perturbations {
		var hippocampus, structures, icv []float64
		for _, h := range heads {
			for _, c := range h.Changes {
				if c.Perturbation == p.Name {
					hippocampus = append(hippocampus, c.Hippocampus[:]...)
					structures = append(structures, c.Structures)
					icv = append(icv, c.ICV)
					wrong += c.WrongSide
				}
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", p.Name, len(structures), spread(hippocampus), spread(structures), spread(icv),
			aims([]aim{{"hippocampus", p.Hippocampus, hippocampus}, {"intracranial", p.ICV, icv}}))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("pairs of structures with left and right exchanged: %d\n\n", wrong)
	slopes(w, shrunk)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nvolume over that of the voxels labelled on the scan's grid, less 1, in per cent\nstructure\tmean\tlargest\n")
	for k, s := range anatomy.Structures {
		var ratios []float64
		for _, h := range heads {
			ratios = append(ratios, h.Voxels[k])
		}
		if k > 0 {
			_, largest := train.Spread(ratios)
			fmt.Fprintf(w, "%s\t%+.1f\t%.1f\n", s.Name, 100*stat.Mean(ratios, nil), 100*largest)
		}
	}
	return w.Flush()
}

func spread(values []float64) string {
	if len(values) == 0 {
		return "\t"
	}
	median, worst := train.Spread(values)
	return fmt.Sprintf("%.1f\t%.1f", 100*median, 100*worst)
}

// aim is a largest change that is aimed at, with the changes that were seen.
type aim struct {
	what  string
	limit float64
	seen  []float64
}

func aims(list []aim) string {
	out := ""
	for _, a := range list {
		if math.IsNaN(a.limit) || len(a.seen) == 0 {
			continue
		}
		median, worst := train.Spread(a.seen)
		verdict := "missed"
		switch {
		case worst <= a.limit:
			verdict = "met by all"
		case median <= a.limit:
			verdict = "met by the median"
		}
		out += fmt.Sprintf("%s %.0f: %s  ", a.what, 100*a.limit, verdict)
	}
	return out
}

func slopes(w *tabwriter.Writer, shrunk []*train.Atrophy) {
	if len(shrunk) == 0 {
		return
	}
	fmt.Fprintf(w, "hippocampi shrunk: measured loss of volume, left and right, in per cent\nmap, as it is and mirrored\t")
	for _, x := range shrunk[0].Taken[0] {
		fmt.Fprintf(w, "of %.0f\t", 100*x)
	}
	fmt.Fprintf(w, "slope (aim 0.9 to 1.1)\n")
	for _, a := range shrunk {
		fmt.Fprintf(w, "%s\t", a.Head)
		for i := range a.Taken[0] {
			fmt.Fprintf(w, "%.1f, %.1f\t", 100*a.Measured[0][i], 100*a.Measured[1][i])
		}
		fmt.Fprintf(w, "%.2f, %.2f\n", a.Slope(0), a.Slope(1))
	}
	var all []float64
	for _, a := range shrunk {
		all = append(all, a.Slope(0), a.Slope(1))
	}
	mean, sd := stat.MeanStdDev(all, nil)
	fmt.Fprintf(w, "mean slope %.2f, SD %.2f, from %.2f to %.2f\n", mean, sd, slices.Min(all), slices.Max(all))
	var missed [anatomy.NumClasses]float64
	var order []anatomy.Structure
	for k, s := range anatomy.Structures {
		for _, a := range shrunk {
			missed[k] += a.Missed[k] / float64(len(shrunk))
		}
		if math.Abs(missed[k]) >= .005 {
			order = append(order, s)
		}
	}
	slices.SortFunc(order, func(a, b anatomy.Structure) int { return cmp.Compare(missed[b.Class], missed[a.Class]) })
	fmt.Fprintf(w, "not seen of the loss of %.0f, by the structure on the other side of the border, in per cent of it\n", 100*shrunk[0].Taken[0][len(shrunk[0].Taken[0])-1])
	for _, s := range order {
		fmt.Fprintf(w, "%s\t%.0f\n", anatomy.Bare(s.Name), 100*missed[s.Class])
	}
}
