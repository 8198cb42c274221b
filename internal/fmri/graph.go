package fmri

import (
	"math"
	"slices"
)

// Graph measures of a connectome, as networkx defines them. Edges are the
// strongest pairs with a positive correlation, weighted by it.
type Graph struct {
	Density    float64   // share of all pairs that are edges
	Degree     []int     // edges of each node
	Strength   []float64 // their summed weight
	Clustering []float64 // geometric mean of its triangles' weights, each over the largest weight (Onnela 2005)
	// PathLength is the mean over connected pairs of the shortest way, an edge
	// being 1/weight long; 0 without edges.
	PathLength float64
	Connected  float64 // share of pairs between which there is a way
	// Modularity of the partition that greedy joining finds (Clauset 2004), and
	// the module of each node, counted from 0 in the order of the nodes.
	Modularity float64
	Module     []int
}

// GraphDensity of the edges that are kept.
const GraphDensity = 0.25

// NewGraph keeps the share density of all pairs of a symmetric matrix of
// correlations: the strongest ones, of those over 0.
func NewGraph(r [][]float64, density float64) *Graph {
	n := len(r)
	var pairs []float64
	for i := range n {
		for j := i + 1; j < n; j++ {
			pairs = append(pairs, r[i][j])
		}
	}
	slices.SortFunc(pairs, func(a, b float64) int {
		if a > b {
			return -1
		}
		return 1
	})
	keep := int(math.Round(density * float64(len(pairs))))
	threshold := math.Inf(1)
	if keep > 0 {
		threshold = pairs[keep-1]
	}
	w := make([][]float64, n)
	g := &Graph{Degree: make([]int, n), Strength: make([]float64, n)}
	edges := 0
	for i := range n {
		w[i] = make([]float64, n)
		for j := range n {
			if i != j && r[i][j] > 0 && r[i][j] >= threshold {
				w[i][j] = r[i][j]
				g.Degree[i]++
				g.Strength[i] += r[i][j]
				edges++
			}
		}
	}
	if len(pairs) > 0 {
		g.Density = float64(edges) / 2 / float64(len(pairs))
	}
	g.Clustering = clustering(w)
	g.PathLength, g.Connected = pathLength(w)
	g.Module = modules(w)
	g.Modularity = modularity(w, g.Module)
	return g
}

func clustering(w [][]float64) []float64 {
	largest := 0.0
	for _, row := range w {
		largest = max(largest, slices.Max(row))
	}
	c := make([]float64, len(w))
	for i, row := range w {
		degree, sum := 0, 0.0
		for j, a := range row {
			if a == 0 {
				continue
			}
			degree++
			for k, b := range row[:j] {
				if b != 0 && w[j][k] != 0 {
					sum += math.Cbrt(a / largest * b / largest * w[j][k] / largest)
				}
			}
		}
		if degree > 1 {
			c[i] = 2 * sum / float64(degree*(degree-1))
		}
	}
	return c
}

// pathLength is Floyd and Warshall's.
func pathLength(w [][]float64) (length, connected float64) {
	n := len(w)
	d := make([][]float64, n)
	for i := range d {
		d[i] = make([]float64, n)
		for j := range d[i] {
			d[i][j] = math.Inf(1)
			if w[i][j] > 0 {
				d[i][j] = 1 / w[i][j]
			}
		}
	}
	for k := range n {
		for i := range n {
			for j := range n {
				d[i][j] = min(d[i][j], d[i][k]+d[k][j])
			}
		}
	}
	pairs := 0
	for i := range n {
		for j := range i {
			if !math.IsInf(d[i][j], 1) {
				length += d[i][j]
				pairs++
			}
		}
	}
	if pairs == 0 {
		return 0, 0
	}
	return length / float64(pairs), float64(pairs) / float64(n*(n-1)/2)
}

// modules joins the two modules whose union raises modularity most, until none
// does.
func modules(w [][]float64) []int {
	n := len(w)
	module := make([]int, n)
	e := make([][]float64, n) // share of weight between modules, each way
	a := make([]float64, n)   // share of weight that ends in a module
	total := 0.0
	for i := range w {
		for _, v := range w[i] {
			total += v
		}
	}
	for i := range w {
		module[i] = i
		e[i] = make([]float64, n)
		for j, v := range w[i] {
			if total > 0 {
				e[i][j] = v / total
				a[i] += v / total
			}
		}
	}
	gone := make([]bool, n)
	for {
		best, p, q := 0.0, -1, -1
		for i := range n {
			for j := range i {
				if gone[i] || gone[j] || e[i][j] == 0 {
					continue
				}
				if gain := 2 * (e[i][j] - a[i]*a[j]); gain > best {
					best, p, q = gain, j, i
				}
			}
		}
		if p < 0 {
			break
		}
		for k := range n {
			e[p][k] += e[q][k]
			e[k][p] = e[p][k]
		}
		a[p] += a[q]
		gone[q] = true
		for i := range module {
			if module[i] == q {
				module[i] = p
			}
		}
	}
	number := map[int]int{}
	for i, m := range module {
		if _, ok := number[m]; !ok {
			number[m] = len(number)
		}
		module[i] = number[m]
	}
	return module
}

// modularity of a partition (Newman 2004, with weights); 0 without edges.
func modularity(w [][]float64, module []int) float64 {
	total := 0.0
	strength := make([]float64, len(w))
	for i := range w {
		for _, v := range w[i] {
			strength[i] += v
			total += v
		}
	}
	if total == 0 {
		return 0
	}
	q := 0.0
	for i := range w {
		for j := range w {
			if module[i] == module[j] {
				q += w[i][j]/total - strength[i]*strength[j]/(total*total)
			}
		}
	}
	return q
}
