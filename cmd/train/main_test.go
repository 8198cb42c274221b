package main

import (
	"testing"

	"neuroscreen/internal/train"
)

type named float64

func (n named) At(uint64) train.Sample { return train.Sample{AtMM: [3]float64{float64(n)}} }

// TestMixed: one thread draws the even samples and one the odd; both see every
// kind as often.
func TestMixed(t *testing.T) {
	m := mixed{named(0), named(1)}
	var seen [2][2]int
	for i := range uint64(16) {
		seen[i%2][int(m.At(i).AtMM[0])]++
	}
	if want := [2][2]int{{4, 4}, {4, 4}}; seen != want {
		t.Errorf("kinds by thread: %v, want %v", seen, want)
	}
	m, seen = mixed{named(0), named(0), named(0), named(1)}, [2][2]int{}
	for i := range uint64(16) {
		seen[i%2][int(m.At(i).AtMM[0])]++
	}
	if want := [2][2]int{{6, 2}, {6, 2}}; seen != want {
		t.Errorf("three of one: %v, want %v", seen, want)
	}
}
