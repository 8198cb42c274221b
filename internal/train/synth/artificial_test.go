package synth

import (
	"cmp"
	"sync"
	"testing"

	"neuroscreen/internal/volume"
)

// artificial is a head of nested ellipsoids with every kind of tissue that the
// generator treats by name: no map is needed to test with it. The left
// hippocampus is the smaller one.
var artificial = sync.OnceValue(func() *Maps { return &Maps{list: []*labelMap{artificialMap("artificial", nil)}} })

// horned is the same head with inferior horns above its hippocampi.
var horned = sync.OnceValue(func() *Maps { return &Maps{list: []*labelMap{artificialMap("horned", map[int]float64{5: 1})}} })

// artificialMap may have structures whose radii are some times larger; inferior
// horns only if they are among these.
func artificialMap(name string, larger map[int]float64) *labelMap {
	type ellipsoid struct {
		label         int
		centre, radii [3]float64
	}
	head := []ellipsoid{
		{511, [3]float64{0, 8, -10}, [3]float64{78, 96, 100}},
		{507, [3]float64{0, 8, -10}, [3]float64{75, 93, 97}},
		{515, [3]float64{0, 0, 0}, [3]float64{68, 84, 68}},
		{24, [3]float64{0, 0, 0}, [3]float64{63, 79, 63}},
		{3, [3]float64{-3, 0, 0}, [3]float64{58, 74, 58}},
		{2, [3]float64{-5, 0, 0}, [3]float64{50, 66, 50}},
		{4, [3]float64{-12, 0, 8}, [3]float64{9, 28, 9}},
		{10, [3]float64{-12, -8, -8}, [3]float64{8, 13, 8}},
		{11, [3]float64{-16, 14, -4}, [3]float64{5, 12, 6}},
		{12, [3]float64{-27, 4, -4}, [3]float64{5, 14, 8}},
		{5, [3]float64{-27, -20, -14}, [3]float64{6, 17, 3}},
		{17, [3]float64{-27, -20, -22}, [3]float64{7, 19, 7}},
		{18, [3]float64{-26, 10, -24}, [3]float64{7, 7, 7}},
		{8, [3]float64{-22, -45, -34}, [3]float64{20, 20, 14}},
		{14, [3]float64{0, 0, -4}, [3]float64{2, 12, 8}},
		{16, [3]float64{0, -16, -48}, [3]float64{10, 10, 30}},
	}
	right := map[int]int{3: 42, 2: 41, 4: 43, 5: 44, 10: 49, 11: 50, 12: 51, 17: 53, 18: 54, 8: 47}
	l := volume.NewLabels(volume.Grid{Shape: [3]int{180, 216, 200}, Affine: volume.Identity})
	middle := [3]float64{89.5, 107.5, 105}
	for _, e := range head {
		if e.label == 5 && larger[5] == 0 {
			continue
		}
		for z := range l.Shape[2] {
			for y := range l.Shape[1] {
				for x := range l.Shape[0] {
					p := [3]float64{float64(x) - middle[0], float64(y) - middle[1], float64(z) - middle[2]}
					// Paired structures are given on the left, and lie there
					// up to the midline.
					label, grow := e.label, cmp.Or(larger[e.label], 1)
					if r, paired := right[e.label]; paired && p[0] > 0 {
						p[0] = -p[0]
						label = r
						if r == 53 {
							grow *= 1.1
						}
					}
					d := 0.0
					for a := range 3 {
						u := (p[a] - e.centre[a]) / (e.radii[a] * grow)
						d += u * u
					}
					if d <= 1 {
						l.Data[l.Index(x, y, z)] = tissueIndex[label]
					}
				}
			}
		}
	}
	m, err := newMap(name, l)
	if err != nil {
		panic(err)
	}
	return m
}

// still is a configuration that draws the map as it is, in T1 contrast, with
// nothing random in place or scanner.
func still(shape [3]int, mm float64) Config {
	one := Range{1, 1}
	return Config{
		Shape: shape, VoxelMM: mm, Scale: one, CoarseKnots: Range{50, 50}, FineKnots: Range{20, 20},
		MedialVolume: one, VentricleVolume: one, BrainVolume: one,
		T1: 1, BlackAir: 1, SliceMM: one, CoarseMM: one, BiasKnots: [2]int{4, 7},
	}
}

// voxels of a still head that hold all of the artificial brain; odd in mm, so
// that no voxel's middle lies on a border of the map's voxels.
var (
	stillShape = [3]int{80, 96, 80}
	stillMM    = 1.9
)

// drawn returns sample i of a changed still head.
func drawn(t *testing.T, i uint64, change func(*Config)) *Sample {
	t.Helper()
	cfg := still(stillShape, stillMM)
	change(&cfg)
	return New(artificial(), cfg, 1).Sample(i)
}

// raw returns the image of a sample before it is normalised.
func raw(t *testing.T, i uint64, change func(*Config)) ([]float32, *Sample) {
	t.Helper()
	cfg := still(stillShape, stillMM)
	change(&cfg)
	g := New(artificial(), cfg, 1)
	s := g.Sample(i)
	return g.image, s
}

func countClass(labels []uint8, class uint8) int {
	n := 0
	for _, k := range labels {
		if k == class {
			n++
		}
	}
	return n
}

func meanWhere(image []float32, in func(i int) bool) float64 {
	sum, n := 0.0, 0
	for i, v := range image {
		if in(i) {
			sum += float64(v)
			n++
		}
	}
	return sum / float64(max(1, n))
}
