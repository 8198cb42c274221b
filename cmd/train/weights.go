package main

import (
	"bytes"
	"fmt"
	"os"

	"neuroscreen/internal/segment"
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
	WholeOnly bool     `help:"Leave out the network of the inner structures."`
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
	if c.WholeOnly && w.Inner != nil {
		w = &segment.Weights{Locate: w.Locate, Whole: w.Whole}
	}
	return w, nil
}

// describe names the networks of weights in a line.
func describe(w *segment.Weights) string {
	s := fmt.Sprintf("whole head after %d steps", w.Whole.Provenance.Steps)
	if w.Half != nil {
		s += fmt.Sprintf(", halves after %d", w.Half.Provenance.Steps)
	}
	if w.Inner != nil {
		s += fmt.Sprintf(", inner structures after %d", w.Inner.Provenance.Steps)
	}
	return s
}
