package train

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/segment"
	"neuroscreen/internal/volume"
)

// RealHead is a scan with labels by others, for the evaluation at the end of a
// run; nothing is learnt from it nor chosen by it.
type RealHead struct {
	Name   string
	Manual bool // labelled by hand; else by FreeSurfer
	Image  *volume.Volume
	Truth  []uint8 // class of each voxel, on the image's grid
}

// RealHeads reads the labelled heads of a folder: FreeSurfer's example (bert)
// and the hand-labelled malf_*, whose labels follow the Neuromorphometrics
// protocol.
func RealHeads(dir string) ([]RealHead, error) {
	bert, err := readMGZ(filepath.Join(dir, "bert_brain.mgz"))
	if err != nil {
		return nil, err
	}
	aseg, err := readVolume(filepath.Join(dir, "bert_aseg.nii.gz"))
	if err != nil {
		return nil, err
	}
	if !aseg.Near(bert.Grid, 0.01) {
		return nil, fmt.Errorf("bert_aseg lies on another grid than bert_brain")
	}
	heads := []RealHead{{Name: "bert", Image: bert, Truth: fromFreeSurfer(aseg.Data)}}

	table, err := manualLabels(filepath.Join(dir, "malf_labels.csv"))
	if err != nil {
		return nil, err
	}
	images, err := filepath.Glob(filepath.Join(dir, "malf_*_SS.nii.gz"))
	if err != nil {
		return nil, err
	}
	for _, path := range images {
		v, err := readVolume(path)
		if err != nil {
			return nil, err
		}
		l, err := readVolume(strings.Replace(path, "_SS.", "_glm.", 1))
		if err != nil {
			return nil, err
		}
		truth := make([]uint8, len(l.Data))
		for i, x := range l.Data {
			truth[i] = uint8(table[int(x)])
		}
		heads = append(heads, RealHead{Name: strings.TrimSuffix(filepath.Base(path), "_SS.nii.gz"), Manual: true, Image: v, Truth: truth})
	}
	return heads, nil
}

// ReadScan reads one scan of any format that the heads come in.
func ReadScan(path string) (*volume.Volume, error) {
	if strings.HasSuffix(path, ".mgz") {
		return readMGZ(path)
	}
	return readVolume(path)
}

func readVolume(path string) (*volume.Volume, error) {
	img, err := nifti.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return &volume.Volume{Grid: volume.Grid{Shape: img.Shape3(), Affine: volume.Affine(img.Affine)}, Data: img.Data}, nil
}

// joined maps FreeSurfer labels that have no class of their own.
var joined = map[int]int{77: 2, 78: 2, 79: 41, 251: 2, 252: 2, 253: 2, 254: 2, 255: 2, 25: 2, 57: 41, 30: 24, 62: 24, 72: 24, 85: 24, 31: 4, 63: 43, 80: 2}

func fromFreeSurfer(labels []float32) []uint8 {
	out := make([]uint8, len(labels))
	for i, x := range labels {
		l := int(x)
		if to, ok := joined[l]; ok {
			l = to
		}
		s, _ := anatomy.ByLabel(l)
		out[i] = uint8(s.Class)
	}
	return out
}

// manualLabels reads which classes the protocol's labels stand for; its
// cortical parcels are not compared, and the vermis, which has no side, goes with
// the left cerebellum.
func manualLabels(path string) (map[int]anatomy.Class, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	other := map[string]string{
		"Accumbens Area": "Accumbens-area", "Inf Lat Vent": "Inf-Lat-Vent", "Lateral Ventricle": "Lateral-Ventricle",
		"Thalamus Proper": "Thalamus", "Cerebellum White Matter": "Cerebellum-White-Matter", "Cerebral White Matter": "Cerebral-White-Matter",
		"Cerebellum Exterior": "Cerebellum-Cortex", "Ventral DC": "VentralDC", "3rd Ventricle": "3rd-Ventricle", "4th Ventricle": "4th-Ventricle", "Brain Stem": "Brain-Stem",
	}
	m := map[int]anatomy.Class{}
	for _, r := range rows[1:] {
		label, err := strconv.Atoi(r[0])
		if err != nil {
			return nil, fmt.Errorf("%s: label %q is no number", filepath.Base(path), r[0])
		}
		name, side := r[1], ""
		for _, s := range []string{"Left", "Right"} {
			if rest, ok := strings.CutPrefix(name, s+" "); ok {
				name, side = rest, s+"-"
			}
		}
		if to, ok := other[name]; ok {
			name = to
		}
		if strings.HasPrefix(name, "Cerebellar Vermal Lobules") {
			side, name = "Left-", "Cerebellum-Cortex"
		}
		if s, ok := anatomy.ByName(side + name); ok {
			m[label] = s.Class
		}
	}
	return m, nil
}

// DiceOf17 joins the sides, as public figures do, and returns the Dice of the
// 17 structures, or of those that the truth holds, by their name without side.
func DiceOf17(labels *volume.Labels, truth []uint8) map[string]float64 {
	type count struct{ both, all, truth float64 }
	counts := map[string]*count{}
	var name [anatomy.NumClasses]string
	for k, s := range anatomy.Structures {
		name[k] = anatomy.Bare(s.Name)
		counts[name[k]] = &count{}
	}
	for i, l := range labels.Data {
		a, b := name[anatomy.ClassOf[l]], name[truth[i]]
		counts[a].all++
		counts[b].all++
		counts[b].truth++
		if a == b {
			counts[a].both++
		}
	}
	out := map[string]float64{}
	for k, c := range counts {
		if k != anatomy.Structures[0].Name && k != anatomy.Structures[anatomy.CSF].Name && c.truth > 0 {
			out[k] = 2 * c.both / c.all
		}
	}
	return out
}

// Dispute is where two labellings of a scan part at a structure, one of which
// gives a voxel to it and the other to another one.
type Dispute struct {
	Decidable int     // voxels, of two structures whose intensities part by more than their SDs
	Ours      float64 // the share of these that is nearer to the mean of what ours calls them
}

// disputes asks a scan's intensities who is right, by structures' names without
// side. What structures look like is taken from the voxels that both agree on.
// Noise and voxels of two tissues leave a share of doubt to either.
func disputes(image []float32, ours, truth []uint8) map[string]Dispute {
	structures := map[string]int{}
	var of [anatomy.NumClasses]int // a structure of the brain, sides joined
	for k := range of {
		of[k] = -1
	}
	for _, k := range anatomy.Brain {
		name := anatomy.Bare(anatomy.Structures[k].Name)
		if _, ok := structures[name]; !ok {
			structures[name] = len(structures)
		}
		of[k] = structures[name]
	}
	type moments struct{ n, sum, squares float64 }
	agreed := make([]moments, len(structures))
	for i, v := range image {
		if s := of[ours[i]]; s >= 0 && s == of[truth[i]] {
			m, x := &agreed[s], float64(v)
			m.n, m.sum, m.squares = m.n+1, m.sum+x, m.squares+x*x
		}
	}
	mean, sd := make([]float64, len(agreed)), make([]float64, len(agreed))
	for s, m := range agreed {
		mean[s] = m.sum / m.n
		sd[s] = math.Sqrt(max(0, m.squares/m.n-mean[s]*mean[s]))
	}
	decidable, right := make([]int, len(agreed)), make([]int, len(agreed))
	for i, v := range image {
		a, b := of[ours[i]], of[truth[i]]
		if a < 0 || b < 0 || a == b || !(math.Abs(mean[a]-mean[b]) > max(sd[a], sd[b])) {
			continue
		}
		x, nearer := float64(v), 0
		if math.Abs(x-mean[a]) < math.Abs(x-mean[b]) {
			nearer = 1
		}
		for _, s := range []int{a, b} {
			decidable[s]++
			right[s] += nearer
		}
	}
	out := map[string]Dispute{}
	for name, s := range structures {
		if decidable[s] > 0 {
			out[name] = Dispute{decidable[s], float64(right[s]) / float64(decidable[s])}
		}
	}
	return out
}

// RealScore is the accuracy on one real head.
type RealScore struct {
	Name                string
	Manual              bool
	Mean17, Hippocampus float64 // the mean of those of the 17 that are labelled
	DeepNuclei          float64 // mean of caudate, putamen and thalamus
	VolumeRatio         float64 // hippocampi, measured over labelled
	Dice                map[string]float64
	Disputes            map[string]Dispute
	Segmentation        *segment.Segmentation
}

// EvaluateReal segments each head as the product does.
func EvaluateReal(ctx context.Context, n *segment.Network, heads []RealHead) ([]RealScore, error) {
	var scores []RealScore
	for _, h := range heads {
		s, err := n.Segment(ctx, h.Image)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		d := DiceOf17(s.Labels, h.Truth)
		sc := RealScore{Name: h.Name, Manual: h.Manual, Dice: d, Hippocampus: d["Hippocampus"], Segmentation: s}
		for _, name := range slices.Sorted(maps.Keys(d)) {
			sc.Mean17 += d[name] / float64(len(d))
		}
		sc.Disputes = disputes(h.Image.Data, classes(slices.Clone(s.Labels.Data)), h.Truth)
		sc.DeepNuclei = (d["Caudate"] + d["Putamen"] + d["Thalamus"]) / 3
		l, _ := anatomy.ByName("Left-Hippocampus")
		labelled := 0.0
		for _, t := range h.Truth {
			if c := anatomy.Class(t); c == l.Class || c == l.Mirror {
				labelled++
			}
		}
		sc.VolumeRatio = (s.MM3[l.Class] + s.MM3[l.Mirror]) / (labelled * h.Image.VoxelMM3())
		scores = append(scores, sc)
	}
	return scores, nil
}

// readMGZ reads a FreeSurfer .mgz of bytes or shorts (bert's brain).
func readMGZ(path string) (*volume.Volume, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	bad := func(what string) error {
		return &fs.PathError{Op: "read mgz", Path: filepath.Base(path), Err: fmt.Errorf("%s", what)}
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, bad(err.Error())
	}
	var h struct {
		Version, X, Y, Z, Frames, Type, DOF int32
		GoodRAS                             int16
		Size                                [3]float32
		Cosines                             [3][3]float32 // by voxel axis
		Centre                              [3]float32
		_                                   [284 - 28 - 2 - 60]byte
	}
	if err := binary.Read(z, binary.BigEndian, &h); err != nil {
		return nil, bad(err.Error())
	}
	if h.Version != 1 || h.GoodRAS != 1 || h.Type != 0 || h.Frames != 1 || h.X <= 0 || h.X > 512 || h.Y <= 0 || h.Y > 512 || h.Z <= 0 || h.Z > 512 {
		return nil, bad("not a single byte volume with an orientation")
	}
	v := volume.New(volume.Grid{Shape: [3]int{int(h.X), int(h.Y), int(h.Z)}, Affine: volume.Identity})
	raw := make([]byte, len(v.Data))
	if _, err := io.ReadFull(z, raw); err != nil {
		return nil, bad(err.Error())
	}
	for i, b := range raw {
		v.Data[i] = float32(b)
	}
	for r := range 3 {
		v.Affine[r][3] = float64(h.Centre[r])
		for a := range 3 {
			m := float64(h.Cosines[a][r]) * float64(h.Size[a])
			v.Affine[r][a] = m
			v.Affine[r][3] -= m * float64(v.Shape[a]) / 2
		}
	}
	return v, nil
}
