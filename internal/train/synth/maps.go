package synth

import (
	"fmt"
	"math"
	"path/filepath"
	"sync"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// Maps are label maps of whole heads, ready to be drawn from. They are only
// read after loading and may be shared.
type Maps struct {
	list    []*labelMap
	related sync.Once
	folder  string // for kept morphs, if any
}

// mapShape is the crop round the brain that is kept of a map, in voxels of
// 1 mm: x to the right, y to the front, z to the top, x fastest.
var mapShape = [3]int{208, 240, 208}

// labelMap is one head.
type labelMap struct {
	name  string
	data  []uint8 // indices into tissues, over mapShape
	reach reach
	// middles are those of a region on the left, and of its counterpart on the
	// right, in mm from the crop's.
	middles [numRegions][2][3]float64
	warps   [numTargets]warp
	morphs  [][][3]float32 // velocities on the lattice; see relate
	// rates[i][j] is the relative rate at which target i shrinks under warp j.
	rates [numTargets][numTargets]float64
	mm3   [numTargets]float64
}

// reach is how far a head extends from the middle of its crop, in mm.
type reach struct {
	bottom float64 // of the lowest voxel that is not air, along z
	// face is the distance of the plane that touches what is inside the skull,
	// by its angle: see faceAngles.
	face [len(faceAngles)]float64
}

// LoadMaps reads training_seg_<name>.nii.gz from a folder.
func LoadMaps(dir string, names ...string) (*Maps, error) {
	list := make([]*labelMap, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2) // a map takes 150 MB while it is read
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			list[i], errs[i] = readMap(filepath.Join(dir, "training_seg_"+name+".nii.gz"), name)
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("label map %s: %w", names[i], err)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("synth: no label maps named")
	}
	return &Maps{list: list}, nil
}

func readMap(path, name string) (*labelMap, error) {
	img, err := nifti.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &volume.Labels{Grid: volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)}, Data: make([]uint8, len(img.Data))}
	// A plain table, as there are 17 million voxels; 255 for what is no label.
	var index [duraLabel]uint8
	for i := range index {
		index[i] = 255
		if t, ok := tissueIndex[i]; ok {
			index[i] = t
		}
	}
	for i, v := range img.Data {
		if !(v >= 0 && v < duraLabel) || float32(int(v)) != v || index[int(v)] == 255 {
			return nil, fmt.Errorf("unknown label %g", v)
		}
		l.Data[i] = index[int(v)]
	}
	return newMap(name, l)
}

// newMap crops a map of indices into tissues round its brain.
func newMap(name string, l *volume.Labels) (*labelMap, error) {
	l = l.Affine.ToRAS().Labels(l)
	for _, mm := range l.VoxelSize() {
		if mm < .99 || mm > 1.01 {
			return nil, fmt.Errorf("voxels of %.3g mm instead of 1", mm)
		}
	}
	var sum [3]float64
	count := 0.0
	at := 0
	for z := range l.Shape[2] {
		for y := range l.Shape[1] {
			for x := range l.Shape[0] {
				if c := classOf[0][l.Data[at]]; c != 0 && c != csf {
					sum[0] += float64(x)
					sum[1] += float64(y)
					sum[2] += float64(z)
					count++
				}
				at++
			}
		}
	}
	if count == 0 {
		return nil, fmt.Errorf("no brain")
	}
	m := &labelMap{name: name, data: make([]uint8, mapShape[0]*mapShape[1]*mapShape[2])}
	var from [3]int
	for a := range from {
		from[a] = int(sum[a]/count+.5) - mapShape[a]/2
	}
	x0, x1 := max(0, -from[0]), min(mapShape[0], l.Shape[0]-from[0])
	for z := range mapShape[2] {
		for y := range mapShape[1] {
			sy, sz := y+from[1], z+from[2]
			if sy < 0 || sz < 0 || sy >= l.Shape[1] || sz >= l.Shape[2] {
				continue
			}
			copy(m.data[(z*mapShape[1]+y)*mapShape[0]:][x0:x1], l.Data[l.Index(x0+from[0], sy, sz):])
		}
	}
	m.markDura()
	m.measure()
	for _, r := range []Region{LeftHalf, LeftInner} {
		for side, labels := range regionLabels[r] {
			m.middles[r][side] = m.middleOf(labels)
		}
	}
	m.prepareWarps()
	return m, nil
}

// markDura tells the outermost millimetre of the fluid round the brain apart:
// maps don't hold the dura, which scans show there.
func (m *labelMap) markDura() {
	fluid, dura := tissueIndex[fluidLabel], tissueIndex[duraLabel]
	steps := [3]int{1, mapShape[0], mapShape[0] * mapShape[1]}
	for i := steps[2]; i < len(m.data)-steps[2]; i++ {
		if m.data[i] != fluid {
			continue
		}
		for _, s := range steps {
			a, b := m.data[i-s], m.data[i+s]
			if a != air && outside[a] || b != air && outside[b] {
				m.data[i] = dura
				break
			}
		}
	}
}

// measure fills in m.reach.
func (m *labelMap) measure() {
	r := &m.reach
	r.bottom = math.Inf(1)
	for i := range r.face {
		r.face[i] = math.Inf(-1)
	}
	for z := range mapShape[2] {
		for y := range mapShape[1] {
			row := m.data[(z*mapShape[1]+y)*mapShape[0]:][:mapShape[0]]
			brain := false
			for _, t := range row {
				if t != air {
					r.bottom = min(r.bottom, fromMiddle(0, y, z)[2])
				}
				brain = brain || !outside[t]
			}
			if brain {
				p := fromMiddle(0, y, z)
				for i, n := range faceAngles {
					r.face[i] = max(r.face[i], n[0]*p[1]+n[1]*p[2])
				}
			}
		}
	}
}

// regionLabels are the structures of a region, and their counterparts.
var regionLabels = func() (labels [numRegions][2][]int) {
	for r, classes := range map[Region][]anatomy.Class{LeftHalf: anatomy.Half, LeftInner: anatomy.Inner} {
		for _, c := range classes {
			s := anatomy.Structures[c]
			labels[r][0] = append(labels[r][0], s.Label)
			labels[r][1] = append(labels[r][1], anatomy.Structures[s.Mirror].Label)
		}
	}
	return labels
}()

// middleOf returns the centre of mass of some labels, in mm from the crop's
// middle.
func (m *labelMap) middleOf(labels []int) (c [3]float64) {
	var in [256]bool
	for _, l := range labels {
		in[tissueIndex[l]] = true
	}
	count := 0.0
	for i, t := range m.data {
		if in[t] {
			p := fromMiddle(i%mapShape[0], i/mapShape[0]%mapShape[1], i/mapShape[0]/mapShape[1])
			for a := range c {
				c[a] += p[a]
			}
			count++
		}
	}
	for a := range c {
		c[a] /= max(count, 1)
	}
	return c
}

// fromMiddle returns the place of a voxel's centre in mm from the middle of
// the crop.
func fromMiddle(x, y, z int) [3]float64 {
	return [3]float64{
		float64(x) - float64(mapShape[0]-1)/2,
		float64(y) - float64(mapShape[1]-1)/2,
		float64(z) - float64(mapShape[2]-1)/2,
	}
}
