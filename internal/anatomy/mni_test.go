package anatomy

import (
	"math"
	"testing"
)

// TestMNI: the landmarks lie on the sides that they are named for, and the two
// of a pair nearly mirror each other.
func TestMNI(t *testing.T) {
	n := 0
	for _, s := range Structures {
		p, ok := MNI(s.Class)
		if !ok {
			continue
		}
		n++
		q, ok := MNI(s.Mirror)
		if !ok || (s.Side == Left) != (p[0] < 0) {
			t.Errorf("%s lies at %v", s.Name, p)
		}
		if math.Abs(p[0]+q[0]) > 2 || math.Abs(p[1]-q[1]) > 2 || math.Abs(p[2]-q[2]) > 2 {
			t.Errorf("%s lies at %v, its mirror image at %v", s.Name, p, q)
		}
	}
	if n != 20 {
		t.Errorf("%d landmarks", n)
	}
	if _, ok := MNI(CSF); ok {
		t.Error("CSF is no landmark")
	}
}
