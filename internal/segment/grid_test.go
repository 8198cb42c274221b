package segment

import (
	"math"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/volume"
)

// TestThinStructuresKeepTheirVolume: a shell about a voxel of its box thick has its
// volume on other grids too.
func TestThinStructuresKeepTheirVolume(t *testing.T) {
	f := part{box: box{from: [3]float64{3.3, 2.6, 2.9}, shape: [3]int{40, 40, 40}, mm: 1}}
	f.hi = f.shape
	for v := range f.voxels() {
		x, y, z := float64(v%40)-19.3, float64(v/40%40)-19.8, float64(v/1600)-20.1
		off := math.Sqrt(x*x+y*y+z*z) - 12
		f.classes = append(f.classes, of(map[int]float32{4: float32(1 / (1 + math.Exp((math.Abs(off)-.4)/.08)))}))
	}
	f.label(false)
	var s Segmentation
	s.measure(&f, nil)
	label := anatomy.Structures[4].Label
	for _, size := range [][3]float64{{1, 1, 1}, {.4, .4, .4}, {.8, .8, .8}, {1.4, 1.4, 1.4}, {.5, .5, 2}} {
		grid := volume.Grid{Affine: volume.Scaling(size)}
		for a := range grid.Shape {
			grid.Shape[a] = int(50 / size[a])
		}
		over := func(l *volume.Labels) float64 {
			return 100 * (float64(l.Count()[label])*grid.VoxelMM3()/s.MM3[4] - 1)
		}
		core := f.on(grid)
		plain := volume.NewLabels(grid)
		f.paint(plain, &core, nil)
		before, after := over(plain), over(toGrid(grid, &s.MM3, []part{f}))
		if math.Abs(before) < 3 {
			t.Errorf("voxels of %v mm: interpolation alone changes the volume by %+.1f %%: too little to show anything", size, before)
		}
		if math.Abs(after) > 1.5 {
			t.Errorf("voxels of %v mm: volume changed by %+.1f %% (%+.1f %% by interpolation alone)", size, after, before)
		}
	}
}
