package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"neuroscreen/internal/testdata"
)

// TestTable: the committed table is what the network gives, but for what other
// weights move.
func TestTable(t *testing.T) {
	folder := testdata.Shared(t, "scans", "odd")
	var b bytes.Buffer
	if err := run(context.Background(), folder, &b); err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../../internal/anatomy/mni.csv")
	if err != nil {
		t.Fatal(err)
	}
	got, want := rows(b.String()), rows(string(committed))
	if len(got) != len(landmarks) || len(got) != len(want) {
		t.Fatalf("%d rows, committed %d", len(got), len(want))
	}
	for name, p := range got {
		for a, v := range p {
			if !(math.Abs(v-want[name][a]) < 2) {
				t.Errorf("%s lies at %v, the table has %v: make it again", name, p, want[name])
				break
			}
		}
	}
}

func rows(table string) map[string][3]float64 {
	out := map[string][3]float64{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), ",")
		var p [3]float64
		if len(cells) != 4 || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "structure") {
			continue
		}
		for a := range p {
			p[a], _ = strconv.ParseFloat(cells[a+1], 64)
		}
		out[cells[0]] = p
	}
	return out
}
