package service

import (
	"fmt"
	"math"
	"testing"
)

func TestDifferences(t *testing.T) {
	const stored = `{"a":{"b":[1,2.50,"x"],"c":null},"timings_ms":{"read":1},"software":{"version":"1"},"n":0}`
	for name, tt := range map[string]struct {
		now, want string
		most      float64
	}{
		"the same":            {`{"n":0,"a":{"c":null,"b":[1,2.50,"x"]},"timings_ms":{"read":2},"software":{"version":"2"}}`, "[]", 0},
		"a number":            {`{"a":{"b":[1,2.75,"x"],"c":null},"n":0}`, "[{a.b[1] 2.50 2.75}]", .1},
		"from nothing":        {`{"a":{"b":[1,2.50,"x"],"c":3},"n":0}`, "[{a.c <nil> 3}]", math.Inf(1)},
		"from 0":              {`{"a":{"b":[1,2.50,"x"],"c":null},"n":1}`, "[{n 0 1}]", math.Inf(1)},
		"a shorter list":      {`{"a":{"b":[1],"c":null},"n":0}`, "[{a.b [1 2.50 x] [1]}]", math.Inf(1)},
		"a field less, more":  {`{"a":{"b":[1,2.50,"x"]},"n":0,"z":true}`, "[{z <nil> true}]", math.Inf(1)},
		"text, not a section": {`{"a":"b","n":0}`, "[{a map[b:[1 2.50 x] c:<nil>] b}]", math.Inf(1)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := differences([]byte(stored), []byte(tt.now))
			if err != nil || fmt.Sprint(got) != tt.want {
				t.Fatalf("%v, want %s, %v", got, tt.want, err)
			}
			for _, d := range got {
				if r := d.Relative(); r != tt.most && math.Abs(r-tt.most) > 1e-9 {
					t.Errorf("%v: relative difference %g, want %g", d, r, tt.most)
				}
			}
		})
	}
	if _, err := differences([]byte(stored), []byte("{")); err == nil {
		t.Error("half a document is compared")
	}
}
