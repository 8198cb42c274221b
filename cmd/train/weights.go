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

// alone is a weights file with one network.
func alone(m *segment.Model) *segment.Weights {
	if m.Architecture.Inner {
		return &segment.Weights{Inner: m}
	}
	return &segment.Weights{Whole: m}
}

// network is the only one of a weights file that alone made.
func network(w *segment.Weights) *segment.Model {
	if w.Inner != nil {
		return w.Inner
	}
	return w.Whole
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
	Weights   []string `help:"Weights files, each with one network or both; a network in none of them is that built into the program." type:"existingfile"`
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
		// What is known of errors is of the networks together.
		if x.Whole == nil {
			x.Whole, x.Errors, x.RelativeError = w.Whole, nil, nil
		}
		if x.Inner == nil && w.Inner != nil {
			x.Inner, x.Errors, x.RelativeError = w.Inner, nil, nil
		}
		w = x
	}
	if c.WholeOnly && w.Inner != nil {
		w = &segment.Weights{Whole: w.Whole}
	}
	return w, nil
}

// describe names the networks of weights in a line.
func describe(w *segment.Weights) string {
	s := fmt.Sprintf("whole head after %d steps", w.Whole.Provenance.Steps)
	if w.Inner != nil {
		s += fmt.Sprintf(", inner structures after %d", w.Inner.Provenance.Steps)
	}
	return s
}
