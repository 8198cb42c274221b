package synth

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

func countLabels(l *volume.Labels, labels ...uint8) int {
	n := 0
	for _, k := range l.Data {
		if slices.Contains(labels, k) {
			n++
		}
	}
	return n
}

func head(t *testing.T, m *Maps, o HeadOptions) (*volume.Volume, *volume.Labels) {
	t.Helper()
	v, l, err := m.Head(o)
	if err != nil {
		t.Fatal(err)
	}
	return v, l
}

// Hippocampi of held-out people lose exactly what is asked for.
func TestHeadSharesOfRealMaps(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("draws many whole heads")
	}
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "04", "12")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"04", "12"} {
		o := HeadOptions{Map: name, Seed: 3, BendMM: 1.5, Shape: [3]int{150, 185, 150}}
		_, before := head(t, m, o)
		for _, loss := range []float64{.05, .10, .20, .30} {
			if name != "04" && loss != .20 {
				continue
			}
			t.Run(fmt.Sprintf("map %s less %.0f %%", name, 100*loss), func(t *testing.T) {
				o.Share = map[Target]float64{LeftHippocampus: 1 - loss, RightHippocampus: 1 - loss}
				_, after := head(t, m, o)
				for _, label := range []uint8{17, 53} {
					if got := float64(countLabels(after, label)) / float64(countLabels(before, label)); math.Abs(got-(1-loss)) > .015 {
						t.Errorf("label %d keeps %.4f of its volume", label, got)
					}
				}
				if name != "04" { // whose horns are too small to take as much
					checkRoom(t, before, after, 17, 18, 5)
					checkRoom(t, before, after, 53, 54, 44)
				}
				if got := float64(countLabels(after, 16)) / float64(countLabels(before, 16)); math.Abs(got-1) > .02 {
					t.Errorf("the brain stem went to %.4f", got)
				}
			})
		}
	}
}

// checkRoom: of what a hippocampus lost, its inferior horn gained the part that it
// gains in people, and the amygdala nothing.
func checkRoom(t *testing.T, before, after *volume.Labels, hippocampus, amygdala, horn uint8) {
	t.Helper()
	gained := func(label uint8) float64 { return float64(countLabels(after, label) - countLabels(before, label)) }
	lost := -gained(hippocampus)
	if got := gained(horn) / lost; math.Abs(got-fluidShare) > .1 {
		t.Errorf("label %d gains %.2f of what label %d loses", horn, got, hippocampus)
	}
	if got := gained(amygdala) / lost; math.Abs(got) > .05 {
		t.Errorf("label %d gains %.2f of what label %d loses", amygdala, got, hippocampus)
	}
}

func TestHeadShares(t *testing.T) {
	t.Parallel()
	o := HeadOptions{VoxelMM: [3]float64{1.5, 1.5, 1.5}, Shape: [3]int{90, 110, 96}}
	_, before := head(t, artificial(), o)
	o.Share = map[Target]float64{LeftHippocampus: .7, RightHippocampus: .95, LeftVentricle: 1.8, RightVentricle: 1.5, Brain: .97}
	_, after := head(t, artificial(), o)
	for target, labels := range map[Target][]uint8{LeftHippocampus: {17}, RightHippocampus: {53}, LeftVentricle: {4, 5}, RightVentricle: {43, 44}} {
		got := float64(countLabels(after, labels...)) / float64(countLabels(before, labels...))
		if math.Abs(got/o.Share[target]-1) > .015 {
			t.Errorf("target %d keeps %.4f of its volume instead of %.2f", target, got, o.Share[target])
		}
	}
	t.Run("mirrored, sides are the finished head's", func(t *testing.T) {
		o := HeadOptions{VoxelMM: o.VoxelMM, Shape: o.Shape, Mirrored: true}
		_, before := head(t, artificial(), o)
		o.Share = map[Target]float64{LeftHippocampus: .7}
		_, after := head(t, artificial(), o)
		if got := float64(countLabels(after, 17)) / float64(countLabels(before, 17)); math.Abs(got-.7) > .015 {
			t.Errorf("left hippocampus keeps %.4f", got)
		}
		if got := float64(countLabels(after, 53)) / float64(countLabels(before, 53)); math.Abs(got-1) > .015 {
			t.Errorf("right hippocampus went to %.4f", got)
		}
	})
	t.Run("fluid takes the room", func(t *testing.T) {
		o := HeadOptions{VoxelMM: o.VoxelMM, Shape: o.Shape}
		_, before := head(t, horned(), o)
		o.Share = map[Target]float64{LeftHippocampus: .7}
		_, after := head(t, horned(), o)
		checkRoom(t, before, after, 17, 18, 5)
	})
}

func TestHeadGrids(t *testing.T) {
	t.Parallel()
	base := HeadOptions{VoxelMM: [3]float64{2, 2, 2}, Seed: 5, BendMM: 2}
	v, l := head(t, artificial(), base)
	if v.Shape != [3]int{104, 120, 104} || v.Orientation() != "RAS" || !l.Grid.Near(v.Grid, 0) {
		t.Fatalf("grid %+v", v.Grid)
	}
	if c := v.Centre(); math.Abs(c[0])+math.Abs(c[1])+math.Abs(c[2]) > 1e-9 {
		t.Errorf("centre %v", c)
	}
	if left, right := sideMean(l, 17), sideMean(l, 53); left > -15 || right < 15 {
		t.Errorf("hippocampi at x = %.1f (left) and %.1f mm", left, right)
	}
	t.Run("stored in other orders, a voxel keeps its place", func(t *testing.T) {
		for _, axes := range []string{"LAS", "LPI", "PIR", "ASL"} {
			o := base
			o.Orientation = axes
			w, k := head(t, artificial(), o)
			if w.Orientation() != axes {
				t.Fatalf("%s came out as %s", axes, w.Orientation())
			}
			re := w.Affine.ToRAS()
			if back := re.Volume(w); !slices.Equal(back.Data, v.Data) || !back.Grid.Near(v.Grid, 1e-9) {
				t.Errorf("%s: another image", axes)
			}
			if back := re.Labels(k); !slices.Equal(back.Data, l.Data) {
				t.Errorf("%s: other labels", axes)
			}
		}
	})
	t.Run("oblique, the head stays straight", func(t *testing.T) {
		o := base
		o.RotationDeg = [3]float64{8, -5, 12}
		_, turned := head(t, artificial(), o)
		o.Oblique = true
		_, k := head(t, artificial(), o)
		if !slices.Equal(turned.Data, k.Data) {
			t.Fatal("the affine changes the voxels")
		}
		straight := volume.ResampleLabels(k, l.Grid, 0)
		same, all := 0, 0
		for i, x := range l.Data {
			if x != 0 {
				all++
				if straight.Data[i] == x {
					same++
				}
			}
		}
		if float64(same) < .93*float64(all) {
			t.Errorf("%.3f of labelled voxels in place", float64(same)/float64(all))
		}
	})
	t.Run("thick slices", func(t *testing.T) {
		o := base
		o.VoxelMM = [3]float64{2, 2, 6}
		w, k := head(t, artificial(), o)
		if s := w.VoxelSize(); w.Shape != [3]int{104, 120, 34} || s != [3]float64{2, 2, 6} {
			t.Fatalf("grid %v of %v mm", w.Shape, s)
		}
		a := float64(countLabels(k, 2, 41)) * k.VoxelMM3()
		b := float64(countLabels(l, 2, 41)) * l.VoxelMM3()
		if math.Abs(a/b-1) > .02 {
			t.Errorf("white matter measures %.0f mm3 instead of %.0f", a, b)
		}
	})
	t.Run("same options, same head", func(t *testing.T) {
		w, k := head(t, artificial(), base)
		if !slices.Equal(w.Data, v.Data) || !slices.Equal(k.Data, l.Data) {
			t.Error("heads differ")
		}
		o := base
		o.Seed = 6
		if w, _ := head(t, artificial(), o); slices.Equal(w.Data, v.Data) {
			t.Error("another seed draws the same head")
		}
	})
}

func sideMean(l *volume.Labels, label uint8) float64 {
	sum, n := 0.0, 0.0
	for i, k := range l.Data {
		if k == label {
			sum += l.Affine.Apply([3]float64{float64(i % l.Shape[0]), float64(i / l.Shape[0] % l.Shape[1]), float64(i / l.Shape[0] / l.Shape[1])})[0]
			n++
		}
	}
	return sum / max(1, n)
}

func TestHeadIsT1(t *testing.T) {
	t.Parallel()
	v, l := head(t, artificial(), HeadOptions{VoxelMM: [3]float64{2, 2, 2}, NoiseSD: 3, BiasSD: .1})
	of := func(label uint8) float64 { return meanWhere(v.Data, func(i int) bool { return l.Data[i] == label }) }
	white, grey, fluid := of(2), of(3), of(24)
	if white < 1.3*grey || grey < 1.5*fluid {
		t.Errorf("white matter %.0f, cortex %.0f, CSF %.0f", white, grey, fluid)
	}
	stripped, _ := head(t, artificial(), HeadOptions{VoxelMM: [3]float64{2, 2, 2}, NoiseSD: 3, BiasSD: .1, Strip: Skull})
	far := meanWhere(stripped.Data, func(i int) bool { return l.Data[i] == 0 })
	if far > 2 || meanWhere(v.Data, func(i int) bool { return l.Data[i] == 0 }) < 10 {
		t.Errorf("background of a stripped head is %.1f", far)
	}
}

func TestHeadRefuses(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]HeadOptions{
		"an unknown map":         {Map: "99"},
		"a short orientation":    {Orientation: "RA"},
		"an axis twice":          {Orientation: "RLS"},
		"letters that aren't":    {Orientation: "XYZ"},
		"a share of nothing":     {VoxelMM: [3]float64{4, 4, 4}, Share: map[Target]float64{LeftHippocampus: 0}},
		"an unreachable share":   {VoxelMM: [3]float64{4, 4, 4}, Share: map[Target]float64{Brain: .2}},
		"too long an axis codes": {Orientation: "RASR"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := artificial().Head(o); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestNewMapRefuses(t *testing.T) {
	t.Parallel()
	t.Run("another voxel size", func(t *testing.T) {
		l := volume.NewLabels(volume.Grid{Shape: [3]int{4, 4, 4}, Affine: volume.Scaling([3]float64{1, 1, 1.2})})
		l.Data[0] = tissueIndex[2]
		if _, err := newMap("x", l); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a map without brain", func(t *testing.T) {
		l := volume.NewLabels(volume.Grid{Shape: [3]int{4, 4, 4}, Affine: volume.Identity})
		if _, err := newMap("x", l); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a folder without maps", func(t *testing.T) {
		if _, err := LoadMaps(t.TempDir(), "01"); err == nil {
			t.Error("no error")
		}
	})
}

// Real maps come as LIA and hold what the table says.
func TestLoadMaps(t *testing.T) {
	t.Parallel()
	m, err := LoadMaps(testdata.Shared(t, "labelmaps"), "04")
	if err != nil {
		t.Fatal(err)
	}
	var count [256]int
	for _, k := range m.list[0].data {
		count[k]++
	}
	// Counted in the file.
	for label, want := range map[int]int{17: 4922, 53: 5267, 4: 6890, 3: 286906, 85: 199, 136: 1405} {
		if got := count[tissueIndex[label]]; got != want {
			t.Errorf("label %d: %d voxels instead of %d", label, got, want)
		}
	}
	if dura, fluid := count[tissueIndex[duraLabel]], count[tissueIndex[fluidLabel]]; dura+fluid != 281842 || dura < fluid/20 {
		t.Errorf("%d voxels of dura and %d of other fluid", dura, fluid)
	}
	_, l := head(t, m, HeadOptions{VoxelMM: [3]float64{2, 2, 2}})
	if left, right := sideMean(l, 17), sideMean(l, 53); left > -15 || right < 15 {
		t.Errorf("hippocampi at x = %.1f (left) and %.1f mm", left, right)
	}
}

// What the horns of healthy people gain while hippocampi lose, from 55 to 80.
func TestFluidShareOfPeople(t *testing.T) {
	t.Parallel()
	for sex, icv := range map[neuroscreen.Sex]float64{neuroscreen.Male: 1.6e6, neuroscreen.Female: 1.43e6} {
		p := norm.Person{Sex: sex, ICVMM3: &icv}
		change := func(structure string) float64 {
			var mm3 [2]float64
			for i, age := range []float64{55, 80} {
				p.AgeYears = age
				r, err := norm.Default().Published(structure, p)
				if err != nil {
					t.Fatal(err)
				}
				mm3[i] = r.ExpectedMM3
			}
			return mm3[1] - mm3[0]
		}
		lost, gained := -change("Left-Hippocampus"), change("Left-Inf-Lat-Vent")
		t.Logf("%s: hippocampus loses %.0f mm3, inferior horn gains %.0f", p.Sex, lost, gained)
		if share := gained / lost; share < .6 || share > 1 {
			t.Errorf("%s: a share of %.2f, taken as %.1f", p.Sex, share, fluidShare)
		}
	}
}
