// Package fmritest makes BOLD runs for tests, of one of the project's
// synthetic heads.
package fmritest

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"neuroscreen/internal/nifti"
	"neuroscreen/internal/volume"
)

// Head returns the synthetic head at 1 mm.
func Head(t testing.TB) *volume.Volume {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	f, err := os.Open(filepath.Join(filepath.Dir(file), "../../../testdata/heads/healthy_45M.nii.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := nifti.Decode(f, nifti.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return &volume.Volume{Grid: volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)}, Data: img.Data}
}

// Grid returns a grid of cubic voxels that holds a head, stored from right to
// left as scanners do.
func Grid(head *volume.Volume, mm float64) volume.Grid {
	var g volume.Grid
	for a, n := range head.Shape {
		g.Shape[a] = int(float64(n) * head.VoxelSize()[a] / mm)
	}
	g.Affine = volume.Scaling([3]float64{-mm, mm, mm})
	c, o := head.Centre(), g.Centre()
	for a := range 3 {
		g.Affine[a][3] += c[a] - o[a]
	}
	return g
}

// Run returns a file of frames on a grid, tr seconds apart: what still holds,
// changed by frame, which may be nil, and by a little noise of the scanner.
func Run(t testing.TB, still *volume.Volume, frames int, tr float64, frame func(t int, v []float32)) []byte {
	t.Helper()
	n := still.Len()
	data := make([]int16, 0, n*frames)
	v := make([]float32, n)
	state := uint32(2463534242)
	for i := range frames {
		copy(v, still.Data)
		if frame != nil {
			frame(i, v)
		}
		for _, x := range v {
			noise := float32(0)
			for range 3 { // nearly Gaussian, SD 2
				state ^= state << 13
				state ^= state >> 17
				state ^= state << 5
				noise += float32(state>>16)/(1<<14) - 2
			}
			data = append(data, int16(x+noise))
		}
	}
	var b bytes.Buffer
	shape := append(still.Shape[:], frames)
	if err := nifti.Write(&b, nifti.Geometry{Shape: shape, Affine: nifti.Affine(still.Affine), Code: 1, TR: tr}, data); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Acquire returns the head as a scanner with a coarser grid sees it, its
// brightest voxels near 1000.
func Acquire(head *volume.Volume, g volume.Grid) *volume.Volume {
	v := volume.Resample(head, g, volume.Options{Sigma: volume.AntiAlias(g, head.Grid)})
	scale := 1000 / volume.Percentiles(v.Data, 99)[0]
	for i := range v.Data {
		v.Data[i] *= scale
	}
	return v
}
