package fmri

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// toMNI of a head that is smaller than the average, tilted and moved; no
// similarity.
var tilted = volume.Affine{{1.08, 0.03, -0.02, 4}, {-0.05, 1.02, 0.22, -12}, {0.02, -0.2, 1.12, 9}, {0, 0, 0, 1}}

// ballsOf labels balls of 4 mm at the landmarks of a head that toMNI takes to
// MNI space; change moves them.
func ballsOf(g volume.Grid, toMNI volume.Affine, change func(s anatomy.Structure, p *[3]float64) bool) *volume.Labels {
	l := volume.NewLabels(g)
	toHead := toMNI.Inverse()
	for _, s := range anatomy.Structures[1:] {
		p, ok := anatomy.MNI(s.Class)
		if !ok {
			continue
		}
		p = toHead.Apply(p)
		if change != nil && !change(s, &p) {
			continue
		}
		middle := g.Affine.Inverse().Apply(p)
		var from, to [3]int
		for a, mm := range g.VoxelSize() {
			from[a], to[a] = max(0, int(middle[a]-4/mm)), min(g.Shape[a]-1, int(middle[a]+4/mm)+1)
		}
		for k := from[2]; k <= to[2]; k++ {
			for j := from[1]; j <= to[1]; j++ {
				for i := from[0]; i <= to[0]; i++ {
					if distance(g.Affine.Apply([3]float64{float64(i), float64(j), float64(k)}), p) < 4 {
						l.Data[g.Index(i, j, k)] = uint8(s.Label)
					}
				}
			}
		}
	}
	return l
}

// headGrid holds a head round the origin; slices from a height in mm on.
func headGrid(mm, bottom float64) volume.Grid {
	g := volume.Grid{Shape: [3]int{int(180 / mm), int(220 / mm), int((100 - bottom) / mm)}, Affine: volume.Scaling([3]float64{-mm, mm, mm})}
	g.Affine[0][3], g.Affine[1][3], g.Affine[2][3] = 90, -110, bottom
	return g
}

// offAtSeeds is how far a place puts the default network's seeds from where they
// are, the median and the worst, in MNI mm.
func offAtSeeds(place *neuroscreen.FMRIPlace, toMNI volume.Affine) (median, worst float64) {
	var off []float64
	for _, s := range DefaultMode().Spheres {
		off = append(off, distance(volume.Affine(*place.ToMNI).Apply(toMNI.Inverse().Apply(s.Centre)), s.Centre))
	}
	slices.Sort(off)
	return off[len(off)/2], off[len(off)-1]
}

func TestLocate(t *testing.T) {
	shift := func(mm float64, names ...string) func(anatomy.Structure, *[3]float64) bool {
		return func(s anatomy.Structure, p *[3]float64) bool {
			if slices.Contains(names, s.Name) {
				p[0] += mm
			}
			return true
		}
	}
	drop := func(names ...string) func(anatomy.Structure, *[3]float64) bool {
		return func(s anatomy.Structure, _ *[3]float64) bool { return !slices.Contains(names, s.Name) }
	}
	rng := rand.New(rand.NewPCG(5, 6))
	whiteMatter := []string{"Left-Cerebellum-White-Matter", "Right-Cerebellum-White-Matter"} // of its cortex nothing is there
	for _, c := range []struct {
		name    string
		grid    volume.Grid
		change  func(anatomy.Structure, *[3]float64) bool
		used    int
		leftOut []string
		median  float64 // at most
		worst   float64
	}{
		{"a whole head", headGrid(3, -90), nil, 20, []string{}, 1.5, 4},
		{"small structures missing", headGrid(3, -90), drop("Left-Accumbens-area", "Right-Accumbens-area", "Left-Amygdala"), 17, []string{}, 2, 4},
		// To the left: to the right the caudate would lie where the other one does.
		{"two mistaken", headGrid(3, -90), shift(-25, "Left-Caudate", "Right-Hippocampus"), 18, []string{"Left-Caudate", "Right-Hippocampus"}, 1.5, 4},
		{"the cerebellum cut", headGrid(3, -44), nil, 16, whiteMatter, 2.5, 6},
		{"labels off by 1.5 mm in each direction", headGrid(3, -90), func(_ anatomy.Structure, p *[3]float64) bool {
			for a := range p {
				p[a] += 1.5 * rng.NormFloat64()
			}
			return true
		}, 20, []string{}, 3, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			place, reasons := Locate(ballsOf(c.grid, tilted, c.change), nil)
			if place.ToMNI == nil || place.From != PlaceFromRun || place.T1 != nil || len(reasons) != 0 {
				t.Fatalf("%+v for %v", place, codesOf(reasons))
			}
			if len(place.Structures) != c.used || !slices.Equal(place.LeftOut, c.leftOut) {
				t.Errorf("%d structures, left out %v", len(place.Structures), place.LeftOut)
			}
			median, worst := offAtSeeds(&place, tilted)
			if !(median <= c.median && worst <= c.worst) {
				t.Errorf("seeds are %.1f mm off, at worst %.1f", median, worst)
			}
			t.Logf("seeds %.1f mm off, at worst %.1f; residual %.1f mm", median, worst, *place.ResidualMM)
		})
	}
}

func TestLocateSaysWhenItCannot(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name   string
		toMNI  volume.Affine
		change func(anatomy.Structure, *[3]float64) bool
		value  float64
		limit  float64
	}{
		{"nothing", tilted, func(anatomy.Structure, *[3]float64) bool { return false }, 0, minLandmarks},
		{"one side", tilted, func(s anatomy.Structure, _ *[3]float64) bool {
			return s.Side == anatomy.Left || s.Name == "Right-Thalamus"
		}, 1, minOfSide},
		{"a child's doll", volume.Affine{{2, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 2, 0}, {0, 0, 0, 1}}, nil, 2, maxScale},
		{"labels all over the head", tilted, func(_ anatomy.Structure, p *[3]float64) bool {
			*p = [3]float64{70*rng.Float64() - 35, 70*rng.Float64() - 35, 70*rng.Float64() - 35}
			return true
		}, 0, 0},
		{"left and right exchanged", tilted.Mul(volume.Scaling([3]float64{-1, 1, 1})), nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			place, reasons := Locate(ballsOf(headGrid(3, -90), c.toMNI, c.change), nil)
			if place.ToMNI != nil || place.From != "" || !slices.Equal(codesOf(reasons), []string{PlaceUnknown}) {
				t.Fatalf("%+v for %v", place, codesOf(reasons))
			}
			if r := reasons[0]; c.limit != 0 && (*r.Limit != c.limit || math.Abs(*r.Value-c.value) > 0.1) {
				t.Errorf("%s (%g, %g)", r.Text, *r.Value, *r.Limit)
			}
			t.Log(reasons[0].Text)
		})
	}
}

func TestLocateThroughT1(t *testing.T) {
	// The T1 lies elsewhere, turned by 14 degrees, and shows what the run cuts.
	toT1 := Motion{MM: [3]float64{12, -8, 20}, Rad: [3]float64{0.2, -0.1, 0.1}}.Affine([3]float64{})
	fromT1 := tilted.Mul(toT1.Inverse())
	t1 := &StoredT1{ScanID: "earlier", Version: 2, Labels: ballsOf(headGrid(1.5, -110), fromT1, nil)}
	t.Run("gives the place", func(t *testing.T) {
		place, reasons := Locate(ballsOf(headGrid(3, -44), tilted, nil), t1)
		if place.From != PlaceFromT1 || place.ToMNI == nil || place.T1.ScanID != "earlier" || place.T1.Version != 2 || len(reasons) != 0 {
			t.Fatalf("%+v for %v", place, codesOf(reasons))
		}
		if len(place.Structures) != 20 || len(place.T1.Structures) != 16 || len(place.T1.LeftOut) != 2 {
			t.Errorf("%d structures, %d shared, left out %v", len(place.Structures), len(place.T1.Structures), place.T1.LeftOut)
		}
		median, worst := offAtSeeds(&place, tilted)
		if !(median < 1.5 && worst < 4) {
			t.Errorf("seeds are %.1f mm off, at worst %.1f", median, worst)
		}
		for i := range 3 {
			for j := range 4 {
				tol := 0.02 // of a turn by a degree: landmarks are balls of a few dozen voxels
				if j == 3 {
					tol = 0.5
				}
				if math.Abs(place.T1.ToT1[i][j]-toT1[i][j]) > tol {
					t.Fatalf("to the T1 %v, want %v", place.T1.ToT1, toT1)
				}
			}
		}
		t.Logf("seeds %.1f mm off, at worst %.1f", median, worst)
	})
	t.Run("is another head's", func(t *testing.T) {
		larger := fromT1.Mul(volume.Scaling([3]float64{0.7, 0.7, 0.7}))
		place, reasons := Locate(ballsOf(headGrid(3, -90), tilted, nil), &StoredT1{Labels: ballsOf(headGrid(1.5, -110), larger, nil)})
		if place.From != PlaceFromRun || place.T1 != nil || !slices.Equal(codesOf(reasons), []string{T1Unused}) {
			t.Errorf("%+v for %v", place, codesOf(reasons))
		}
	})
	t.Run("can't be read", func(t *testing.T) {
		place, reasons := Locate(ballsOf(headGrid(3, -90), tilted, nil), &StoredT1{ScanID: "earlier"})
		if place.From != PlaceFromRun || !slices.Equal(codesOf(reasons), []string{T1Unused}) {
			t.Errorf("%+v for %v", place, codesOf(reasons))
		}
	})
	t.Run("and neither does the run", func(t *testing.T) {
		empty := volume.NewLabels(headGrid(3, -90))
		place, reasons := Locate(empty, t1)
		if place.ToMNI != nil || !slices.Equal(codesOf(reasons), []string{T1Unused, PlaceUnknown}) {
			t.Errorf("%+v for %v", place, codesOf(reasons))
		}
	})
}

func TestCentroids(t *testing.T) {
	l := volume.NewLabels(volume.Grid{Shape: [3]int{9, 9, 9}, Affine: volume.Affine{{-2, 0, 0, 10}, {0, 2, 0, 0}, {0, 0, 3, 0}, {0, 0, 0, 1}}})
	l.Data[l.Index(4, 4, 4)], l.Data[l.Index(4, 6, 4)] = 17, 17
	l.Data[l.Index(4, 4, 7)] = 53
	l.Data[0] = 200 // no structure
	c := Centroids(l)
	left, _ := anatomy.ByLabel(17)
	right, _ := anatomy.ByLabel(53)
	if c[left.Class] != (Centroid{[3]float64{2, 10, 12}, 2, false}) || c[right.Class] != (Centroid{[3]float64{2, 8, 21}, 1, true}) || c[0].Voxels != 0 {
		t.Errorf("%+v, %+v", c[left.Class], c[right.Class])
	}
}
