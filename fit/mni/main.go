// Command mni makes internal/anatomy/mni.csv: where the centroids of the
// structures lie in MNI space, as the network labels them on the average of 152
// heads that defines the space.
//
//	go run ./fit/mni ../shared/data/scans/odd > internal/anatomy/mni.csv
//
// The average (avg152T1, 2 mm) is an ANALYZE pair: its header gives the voxel at
// the origin, but not which side is left. A marked copy of the same average
// (mniRL.nii.gz) does, by its sform and by the letters painted into it; for
// these it can't be labelled itself.
package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/fmri"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/volume"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: mni FOLDER")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mni:", err)
		os.Exit(1)
	}
}

// landmarks are the structures whose centroids hardly depend on age or on where
// an image ends, and whose labels on the average aren't shifted by its blur, as
// those of the cerebral cortex are.
var landmarks = map[string]bool{}

func init() {
	for _, side := range []string{"Left-", "Right-"} {
		for _, name := range []string{"Cerebellum-White-Matter", "Cerebellum-Cortex", "Thalamus", "Caudate", "Putamen", "Pallidum",
			"Hippocampus", "Amygdala", "Accumbens-area", "VentralDC"} {
			landmarks[side+name] = true
		}
	}
}

func run(ctx context.Context, folder string, w io.Writer) error {
	average, err := readAverage(folder)
	if err != nil {
		return err
	}
	shipped, err := segment.DefaultWeights()
	if err != nil {
		return err
	}
	// In voxels of 2 mm, blurred by what 152 heads differ in, the folia of the
	// cerebellum are like nothing that the halves' network knows at 1 mm.
	weights := *shipped
	weights.Half = nil
	network := segment.New(&weights, 0)
	seg, err := network.Segment(ctx, average)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "# Centroids of the network's labels on avg152T1 (ICBM AVG 152 T1 TAL LIN, 2 mm): RAS mm in MNI152.\n")
	fmt.Fprintf(w, "# Made by fit/mni with weights %.12s, but for the halves' network. No part of the image is in here.\n", shipped.SHA256())
	fmt.Fprintf(w, "structure,x,y,z\n")
	for n, c := range fmri.Centroids(seg.Labels) {
		if s := anatomy.Structures[n]; landmarks[s.Name] {
			if c.Voxels == 0 {
				return fmt.Errorf("%s was not found", s.Name)
			}
			fmt.Fprintf(w, "%s,%.2f,%.2f,%.2f\n", s.Name, c.MM[0], c.MM[1], c.MM[2])
		}
	}
	return nil
}

// readAverage returns the average with its affine.
func readAverage(folder string) (*volume.Volume, error) {
	hdr, err := os.Open(filepath.Join(folder, "nibabel_analyze.hdr"))
	if err != nil {
		return nil, err
	}
	defer hdr.Close()
	img, err := os.Open(filepath.Join(folder, "oro_anlz_avg152T1.img.gz"))
	if err != nil {
		return nil, err
	}
	defer img.Close()
	average, err := nifti.DecodePair(hdr, img, nifti.Limits{})
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(folder, "mniRL.nii.gz"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	marked, err := nifti.Decode(f, nifti.Limits{})
	if err != nil {
		return nil, err
	}
	n := marked.Shape3()
	if average.Shape3() != n {
		return nil, fmt.Errorf("the average has the shape %v, its marked copy %v", average.Shape, marked.Shape)
	}
	// Its header scales by a factor that is not the copy's.
	scale := 255 / slices.Max(average.Data)
	for i := range average.Data {
		average.Data[i] *= scale
	}
	v := &volume.Volume{Grid: volume.Grid{Shape: n, Affine: volume.Affine(marked.Affine)}, Data: average.Data}
	if offMirrored, off := difference(v, marked.Data, true), difference(v, marked.Data, false); offMirrored < off/2 {
		last := float64(n[0] - 1)
		v.Affine = v.Affine.Mul(volume.Affine{{-1, 0, 0, last}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}})
	} else if off > offMirrored/2 {
		return nil, fmt.Errorf("the average resembles its marked copy by %.2f and mirrored by %.2f: its sides can't be told apart", off, offMirrored)
	}
	return v, nil
}

// difference is the mean difference from the marked copy outside of the letters,
// which are brighter than any tissue.
func difference(v *volume.Volume, marked []float32, mirrored bool) float64 {
	const letters = 250
	sum, count := 0.0, 0
	for k := range v.Shape[2] {
		for j := range v.Shape[1] {
			for i := range v.Shape[0] {
				m := marked[v.Index(i, j, k)]
				if m >= letters {
					continue
				}
				at := i
				if mirrored {
					at = v.Shape[0] - 1 - i
				}
				sum += math.Abs(float64(v.Data[v.Index(at, j, k)] - m))
				count++
			}
		}
	}
	return sum / float64(count)
}
