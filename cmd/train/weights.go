package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"neuroscreen/internal/segment"
	"neuroscreen/internal/train"
	"neuroscreen/internal/train/synth"
)

// asShipped rounds weights to the half precision of their file.
func asShipped(w *segment.Weights) (*segment.Weights, error) {
	var b bytes.Buffer
	if err := w.Write(&b); err != nil {
		return nil, err
	}
	return segment.ReadWeights(b.Bytes())
}

// network is a stage's network among weights, which may be set.
func network(w *segment.Weights, stage string) **segment.Model {
	switch stage {
	case "locate":
		return &w.Locate
	case "half":
		return &w.Half
	case "inner":
		return &w.Inner
	}
	return &w.Whole
}

func writeWeights(path string, w *segment.Weights) error {
	var b bytes.Buffer
	if err := w.Write(&b); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readWeights(path string) (*segment.Weights, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	w, err := segment.ReadWeights(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

// chosen says which weights a command works on.
type chosen struct {
	Weights   []string `help:"Weights files, each with one network or more; a network in none of them is that built into the program." type:"existingfile"`
	WholeOnly bool     `help:"Label the whole head at 2 mm only, without closer looks."`
}

func (c chosen) read() (*segment.Weights, error) {
	n, err := segment.Default()
	if err != nil {
		return nil, err
	}
	w := n.Weights()
	for _, path := range c.Weights {
		x, err := readWeights(path)
		if err != nil {
			return nil, err
		}
		for stage := range stages {
			ours, its := network(w, stage), network(x, stage)
			if *its == nil && *ours != nil {
				// What is known of errors is of the networks together.
				*its, x.Errors, x.RelativeError = *ours, nil, nil
			}
		}
		w = x
	}
	if c.WholeOnly {
		w = &segment.Weights{Locate: w.Locate, Whole: w.Whole}
	}
	return w, nil
}

// describe names the networks of weights in a line.
func describe(w *segment.Weights) string {
	var parts []string
	for _, n := range []struct {
		name string
		m    *segment.Model
	}{{"whole head", w.Whole}, {"halves", w.Half}, {"inner structures", w.Inner}} {
		if n.m == nil {
			continue
		}
		s := fmt.Sprintf("%s after %d steps", n.name, n.m.Provenance.Steps)
		if b := n.m.Borders; b != nil {
			s += fmt.Sprintf(" and %d for their borders", b.Provenance.Steps)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

type averageCmd struct {
	data
	Stage    string   `help:"Network to average: ${enum}." enum:"locate,whole,half,inner" required:""`
	Weights  []string `help:"Weights files that hold it, the one that learnt last at the end." type:"existingfile" required:""`
	Out      string   `help:"File for the mean." required:""`
	Validate int      `help:"Held-out boxes on which the networks and their mean are compared." default:"24"`
}

func (c *averageCmd) Run(ctx context.Context) error {
	stage := stages[c.Stage]
	held, err := c.sampler(heldOut, stage.Architecture, stage.draws(synth.Evaluation), 1)
	if err != nil {
		return err
	}
	judge := func(name string, m *segment.Model) (train.Scores, error) {
		sc, err := train.EvaluateBoxes(ctx, m, runtime.NumCPU(), held, c.Validate, stage.judged)
		fmt.Printf("%s: held-out Dice %.4f, hippocampus %.4f\n", name, sc.Mean, sc.Hippocampus)
		return sc, err
	}
	var models []*segment.Model
	for _, path := range c.Weights {
		w, err := readWeights(path)
		if err != nil {
			return err
		}
		m := *network(w, c.Stage)
		if m == nil {
			return fmt.Errorf("%s holds no network of stage %s", path, c.Stage)
		}
		if _, err := judge(path, m); err != nil {
			return err
		}
		models = append(models, m)
	}
	mean, err := train.Average(models)
	if err != nil {
		return err
	}
	w := &segment.Weights{}
	*network(w, c.Stage) = mean
	if w, err = asShipped(w); err != nil {
		return err
	}
	sc, err := judge("their mean", *network(w, c.Stage))
	if err != nil {
		return err
	}
	(*network(w, c.Stage)).Provenance.Evaluation = heldOutScores(c.Validate, sc)
	return writeWeights(c.Out, w)
}

// heldOutScores is what is kept with weights of one network.
func heldOutScores(heads int, sc train.Scores) map[string]float64 {
	return map[string]float64{"held_out_heads": float64(heads), "held_out_dice": sc.Mean, "held_out_dice_hippocampus": sc.Hippocampus}
}
