package segment

import (
	"context"
	"math"
	"testing"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

func readScan(t testing.TB, path string) *volume.Volume {
	t.Helper()
	img, err := nifti.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &volume.Volume{Grid: volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)}, Data: img.Data}
}

func network(t testing.TB) *Network {
	t.Helper()
	n, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRealHeads: on whole and stripped real heads, volumes are those of adults,
// both sides are alike, and each label lies on its own side.
func TestRealHeads(t *testing.T) {
	left, _ := anatomy.ByName("Left-Hippocampus")
	for _, name := range []string{"chris_t1", "t1_crop", "ds000011_sub-01_T1w", "ds000011_sub-02_T1w", "ds002748_sub-01_T1w", "ds002748_sub-03_T1w"} {
		t.Run(name, func(t *testing.T) {
			v := readScan(t, testdata.Shared(t, "scans", "t1", name+".nii.gz"))
			s, err := network(t).Segment(context.Background(), v)
			if err != nil {
				t.Fatal(err)
			}
			if s.Labels.Grid != v.Grid {
				t.Errorf("labels lie on grid %+v, the scan on %+v", s.Labels.Grid, v.Grid)
			}
			if s.ICVMM3 < 1.1e6 || s.ICVMM3 > 1.95e6 {
				t.Errorf("intracranial volume %.0f ml", s.ICVMM3/1000)
			}
			l, r := s.MM3[left.Class], s.MM3[left.Mirror]
			if l < 2500 || r < 2500 || l > 6000 || r > 6000 || math.Abs(l-r)/(l+r) > 0.15 {
				t.Errorf("hippocampi %.0f and %.0f mm3", l, r)
			}
			// Mean place of left minus right along the patient's axis.
			var sum, count [anatomy.NumClasses]float64
			for o, lab := range s.Labels.Data {
				if lab == 0 {
					continue
				}
				st, _ := anatomy.ByLabel(int(lab))
				p := v.Affine.Apply([3]float64{float64(o % v.Shape[0]), float64(o / v.Shape[0] % v.Shape[1]), float64(o / v.Shape[0] / v.Shape[1])})
				sum[st.Class] += p[0]
				count[st.Class]++
			}
			for k, st := range anatomy.Structures {
				if st.Side == anatomy.Left && sum[k]/count[k] >= sum[st.Mirror]/count[st.Mirror] {
					t.Errorf("%s lies right of its mirror", st.Name)
				}
				if k > 0 && count[k] == 0 {
					t.Errorf("no %s", st.Name)
				}
			}
			for k, st := range anatomy.Structures[1:] {
				if voxels, mm3 := count[k+1]*v.VoxelMM3(), s.MM3[k+1]; math.Abs(mm3/voxels-1) > .03 {
					t.Errorf("%s: %.0f mm3, its voxels %.0f", st.Name, mm3, voxels)
				}
			}
		})
	}
}

// TestStorageOrder: the same head stored along other axes gives the same
// volumes to the last bit, and the same labels in the patient.
func TestStorageOrder(t *testing.T) {
	v := readScan(t, testdata.Shared(t, "scans", "t1", "ds000011_sub-01_T1w.nii.gz"))
	n := network(t)
	want, err := n.Segment(context.Background(), v)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []volume.Reorientation{
		{Axis: [3]int{2, 0, 1}, Flip: [3]bool{true, false, true}},
		{Axis: [3]int{1, 2, 0}, Flip: [3]bool{false, true, false}},
	} {
		w := r.Volume(v)
		got, err := n.Segment(context.Background(), w)
		if err != nil {
			t.Fatal(err)
		}
		if got.MM3 != want.MM3 {
			t.Errorf("%s: volumes differ from those in %s", w.Orientation(), v.Orientation())
		}
		back := r.Inverse().Labels(got.Labels)
		for o, l := range back.Data {
			if l != want.Labels.Data[o] {
				t.Fatalf("%s: label %d at voxel %d, %d in %s", w.Orientation(), l, o, want.Labels.Data[o], v.Orientation())
			}
		}
	}
}

func BenchmarkSegment(b *testing.B) {
	v := readScan(b, testdata.Shared(b, "scans", "t1", "chris_t1.nii.gz"))
	built := network(b)
	w := *built.Weights()
	half, inner := *w.Half, *w.Inner
	for _, m := range []*Model{&half, &inner} {
		m.Borders = NewBorders(m.Architecture, 64, 64)
	}
	w.Half, w.Inner = &half, &inner
	for _, of := range []struct {
		name string
		n    *Network
	}{{"built in", built}, {"borders of 64 and 64", New(&w, 0)}} {
		b.Run(of.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := of.n.Segment(context.Background(), v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
