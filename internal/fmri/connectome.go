package fmri

import (
	"math"

	"neuroscreen/internal/anatomy"
)

// Node of a connectome: a structure and the mean signal of its voxels.
type Node struct {
	anatomy.Structure
	Voxels int
	Signal []float64 // every frame of the run, not cleaned
}

// minNodeVoxels of a structure whose mean signal stands for it.
const minNodeVoxels = 5

// Nodes returns the structures that have at least five voxels in the series, in
// the order of their labels. CSF outside the brain is none. Cleaning is linear,
// so that the mean may be taken before.
func Nodes(s *Series, labels []uint8) []Node {
	var nodes [anatomy.NumClasses]Node
	for n, at := range s.Voxels {
		a, ok := anatomy.ByLabel(int(labels[at]))
		if !ok || a.Class == 0 || a.Class == anatomy.CSF {
			continue
		}
		node := &nodes[a.Class]
		if node.Signal == nil {
			node.Structure, node.Signal = a, make([]float64, s.Frames)
		}
		node.Voxels++
		for t, x := range s.Voxel(n) {
			node.Signal[t] += float64(x)
		}
	}
	var out []Node
	for _, node := range nodes {
		if node.Voxels < minNodeVoxels {
			continue
		}
		for t := range node.Signal {
			node.Signal[t] /= float64(node.Voxels)
		}
		out = append(out, node)
	}
	return out
}

// Grey reports whether a node holds neurons: white matter and ventricles are
// measured, but are no nodes of a network.
func (n *Node) Grey() bool {
	s, _ := anatomy.ByLabel(n.Label)
	return s.Tissue == anatomy.Cortex || s.Tissue == anatomy.Compact
}

// Connectome holds what two nodes have to do with each other.
type Connectome struct {
	R [][]float64 // Pearson's correlation of the cleaned signals; 1 on the diagonal
	Z [][]float64 // Fisher's z = artanh r; 0 on the diagonal

	// StandardError of z, 1/sqrt(degrees of freedom - 2), which ignores that
	// neighbouring frames resemble each other: it is a lower bound.
	StandardError float64

	// SplitHalf is the correlation, over all pairs, of the z of the first and
	// the second half of the kept frames; Reliability what it says of the whole
	// run, 2r/(1+r) (Spearman-Brown), or 0 when the halves contradict each other.
	SplitHalf   float64
	Reliability float64
}

// Connect correlates cleaned signals. It returns nil when the design leaves
// fewer than MinDegreesOfFreedom, or there are fewer than three nodes.
func Connect(nodes []Node, d *Design) *Connectome {
	if d.DegreesOfFreedom < MinDegreesOfFreedom || len(nodes) < 3 {
		return nil
	}
	clean := make([][]float64, len(nodes))
	for i := range nodes {
		clean[i] = d.Residual(nodes[i].Signal)
	}
	c := &Connectome{StandardError: 1 / math.Sqrt(float64(d.DegreesOfFreedom-2))}
	c.R = correlations(clean)
	c.Z = make([][]float64, len(nodes))
	for i, row := range c.R {
		c.Z[i] = make([]float64, len(row))
		for j, r := range row {
			if i != j {
				c.Z[i][j] = fisher(r)
			}
		}
	}
	half := len(d.Frames) / 2
	first, second := make([][]float64, len(clean)), make([][]float64, len(clean))
	for i, x := range clean {
		first[i], second[i] = x[:half], x[half:]
	}
	c.SplitHalf = correlation(upper(correlations(first)), upper(correlations(second)))
	if c.SplitHalf > 0 {
		c.Reliability = 2 * c.SplitHalf / (1 + c.SplitHalf)
	}
	return c
}

// fisher is artanh, kept finite for series that equal each other.
func fisher(r float64) float64 { return math.Atanh(min(max(r, -1+1e-12), 1-1e-12)) }

// upper returns the z of all pairs of nodes.
func upper(r [][]float64) (z []float64) {
	for i := range r {
		for j := i + 1; j < len(r); j++ {
			z = append(z, fisher(r[i][j]))
		}
	}
	return z
}

func correlations(x [][]float64) [][]float64 {
	r := make([][]float64, len(x))
	for i := range x {
		r[i] = make([]float64, len(x))
		r[i][i] = 1
	}
	for i := range x {
		for j := range i {
			r[i][j] = correlation(x[i], x[j])
			r[j][i] = r[i][j]
		}
	}
	return r
}

// correlation is Pearson's; 0 when a series is constant.
func correlation(a, b []float64) float64 {
	ma, mb := mean(a), mean(b)
	ab, aa, bb := 0.0, 0.0, 0.0
	for i := range a {
		x, y := a[i]-ma, b[i]-mb
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}
