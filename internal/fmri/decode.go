package fmri

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"

	"neuroscreen"
)

// DecodeOptions of a decoding. Zero fields take the defaults.
type DecodeOptions struct {
	Voxels       int    // that each fold selects; DefaultVoxels
	Permutations int    // of the labels within runs; DefaultPermutations, below 0 for none
	Seed         uint64 // of the permutations
}

// Defaults of decoding.
const (
	DefaultVoxels       = 200
	DefaultPermutations = 200
)

// Decoding says how well patterns of activity tell what the person did.
type Decoding struct {
	Conditions []string
	Runs       []string
	Accuracy   float64   // share of events whose condition was told, in runs that were not learnt from
	Fold       []float64 // the same of each run that was left out
	Confusion  [][]int   // of each true condition, how often which was told
	Predicted  []int     // of each sample
	Voxels     int       // selected in each fold

	// P is the share of permutations that tell as much, the run itself counted
	// among them; 1 without any. Shuffled is their mean accuracy.
	P            float64
	Permutations int
	Shuffled     float64
	// Weights of each condition on the voxels of the series, learnt from all
	// runs; 0 where a voxel was not selected. They are a filter, not a map of
	// activity (Haufe 2014, doi:10.1016/j.neuroimage.2013.10.067).
	Weights [][]float32
}

// Decode learns conditions from all runs but one and tells those of the one
// left out, each in turn. Inside each fold the voxels with the largest F of a
// one-way analysis of variance over the training events are selected; the
// classifier is a linear support vector machine for each condition against the
// others, of which the largest answer counts (scikit-learn's
// SelectKBest(f_classif) and LinearSVC with C = 1).
//
// Permutations shuffle the labels within each run and repeat everything,
// selection included.
//
// Errors: CodeUnprocessable TooFewEvents when some fold learns fewer than two
// conditions; ctx's.
func Decode(ctx context.Context, s *Samples, opt DecodeOptions) (*Decoding, error) {
	if opt.Voxels <= 0 {
		opt.Voxels = DefaultVoxels
	}
	if opt.Permutations == 0 {
		opt.Permutations = DefaultPermutations
	}
	for n := range s.Runs {
		seen := map[int]bool{}
		for i, c := range s.Class {
			if s.Run[i] != n {
				seen[c] = true
			}
		}
		if len(seen) < 2 {
			return nil, neuroscreen.FieldErrorf(neuroscreen.CodeUnprocessable, TooFewEvents, "events",
				"without run %q the events are of %d condition; every run must hold several", s.Runs[n], len(seen))
		}
	}
	d := &Decoding{Conditions: s.Conditions, Runs: s.Runs, P: 1}
	d.Predicted, d.Voxels = s.crossValidate(s.Class, opt.Voxels)
	d.Confusion = make([][]int, len(s.Conditions))
	for c := range d.Confusion {
		d.Confusion[c] = make([]int, len(s.Conditions))
	}
	right, of := make([]float64, len(s.Runs)), make([]float64, len(s.Runs))
	for i, c := range s.Class {
		d.Confusion[c][d.Predicted[i]]++
		of[s.Run[i]]++
		if c == d.Predicted[i] {
			right[s.Run[i]]++
		}
	}
	for n := range right {
		d.Fold = append(d.Fold, right[n]/max(of[n], 1))
	}
	d.Accuracy = share(s.Class, d.Predicted)

	all := make([]int, len(s.X))
	for i := range all {
		all[i] = i
	}
	m := s.learn(all, s.Class, opt.Voxels)
	d.Weights = make([][]float32, len(s.Conditions))
	for c := range d.Weights {
		d.Weights[c] = make([]float32, len(s.X[0]))
		for i, v := range m.voxels {
			d.Weights[c][v] = float32(m.weights.At(i, c))
		}
	}

	if opt.Permutations > 0 {
		d.Permutations = opt.Permutations
		accuracy := make([]float64, opt.Permutations)
		err := each(ctx, opt.Permutations, func(p int) error {
			shuffled := s.shuffle(rand.New(rand.NewPCG(opt.Seed, uint64(p))))
			predicted, _ := s.crossValidate(shuffled, opt.Voxels)
			accuracy[p] = share(shuffled, predicted)
			return nil
		})
		if err != nil {
			return nil, err
		}
		as := 1.0
		for _, a := range accuracy {
			if a >= d.Accuracy {
				as++
			}
		}
		d.P, d.Shuffled = as/float64(opt.Permutations+1), mean(accuracy)
	}
	return d, ctx.Err()
}

func share(truth, told []int) float64 {
	n := 0
	for i := range truth {
		if truth[i] == told[i] {
			n++
		}
	}
	return float64(n) / float64(len(truth))
}

// shuffle returns the labels in another order within each run.
func (s *Samples) shuffle(rng *rand.Rand) []int {
	out := slices.Clone(s.Class)
	for n := range s.Runs {
		var at []int
		for i, r := range s.Run {
			if r == n {
				at = append(at, i)
			}
		}
		rng.Shuffle(len(at), func(a, b int) { out[at[a]], out[at[b]] = out[at[b]], out[at[a]] })
	}
	return out
}

// crossValidate returns what is told of each sample, and how many voxels were
// selected.
func (s *Samples) crossValidate(class []int, voxels int) (told []int, selected int) {
	told = make([]int, len(s.X))
	for n := range s.Runs {
		var train []int
		for i, r := range s.Run {
			if r != n {
				train = append(train, i)
			}
		}
		m := s.learn(train, class, voxels)
		selected = len(m.voxels)
		for i, r := range s.Run {
			if r == n {
				told[i] = m.tell(s.X[i])
			}
		}
	}
	return told, selected
}

// machine is a trained classifier.
type machine struct {
	voxels    []int
	weights   *mat.Dense // voxels and intercept x conditions
	intercept []float64
}

func (m *machine) tell(x []float32) int {
	best, at := math.Inf(-1), 0
	for c, b := range m.intercept {
		for i, v := range m.voxels {
			b += float64(x[v]) * m.weights.At(i, c)
		}
		if b > best {
			best, at = b, c
		}
	}
	return at
}

// learn selects voxels and fits one machine a condition, in the dual form:
// there are fewer events than voxels.
func (s *Samples) learn(train, class []int, voxels int) *machine {
	m := &machine{voxels: s.selectVoxels(train, class, voxels), intercept: make([]float64, len(s.Conditions))}
	n, p, k := len(train), len(m.voxels), len(s.Conditions)
	x := mat.NewDense(n, p+1, nil) // with a column of ones for the intercept
	for i, t := range train {
		row := x.RawRowView(i)
		for j, v := range m.voxels {
			row[j] = float64(s.X[t][v])
		}
		row[p] = 1
	}
	var kernel mat.SymDense
	kernel.SymOuterK(1, x)
	dual := mat.NewDense(n, k, nil)
	sign := make([]float64, n)
	for c := range k {
		for i, t := range train {
			sign[i] = -1
			if class[t] == c {
				sign[i] = 1
			}
		}
		for i, a := range separate(&kernel, sign) {
			dual.Set(i, c, a*sign[i])
		}
	}
	var w mat.Dense
	w.Mul(x.T(), dual)
	for c := range k {
		m.intercept[c] = w.At(p, c)
	}
	m.weights = &w
	return m
}

const (
	slackCost  = 1    // C of the support vector machines
	maxSweeps  = 2000 // over all events
	svmSettled = 1e-6 // largest violation of the optimum's conditions
)

// separate returns the dual solution of a linear support vector machine with
// squared hinge loss: of min a'(Q + 1/(2C))a/2 - sum a over a >= 0, with
// Q = sign' kernel sign, by coordinate descent (Hsieh 2008,
// doi:10.1145/1390156.1390208). It is unique.
func separate(kernel *mat.SymDense, sign []float64) []float64 {
	n := len(sign)
	a := make([]float64, n)
	h := make([]float64, n) // what the machine answers to each event
	k := kernel.RawSymmetric()
	rows := make([]float64, n*n) // both triangles, so that a row is one piece
	for i := range n {
		for j := i; j < n; j++ {
			rows[i*n+j], rows[j*n+i] = k.Data[i*k.Stride+j], k.Data[i*k.Stride+j]
		}
	}
	for range maxSweeps {
		worst := 0.0
		for i := range a {
			slope := sign[i]*h[i] - 1 + a[i]*0.5/slackCost
			if a[i] == 0 {
				slope = min(slope, 0)
			}
			if slope == 0 {
				continue
			}
			worst = max(worst, math.Abs(slope))
			row := rows[i*n : (i+1)*n]
			to := max(a[i]-slope/(row[i]+0.5/slackCost), 0)
			axpy(h, (to-a[i])*sign[i], row)
			a[i] = to
		}
		if worst < svmSettled {
			break
		}
	}
	return a
}

// selectVoxels returns the voxels with the largest F, ascending. Voxels without
// variance are never among them.
func (s *Samples) selectVoxels(train, class []int, want int) []int {
	p, k := len(s.X[0]), len(s.Conditions)
	sums := make([][]float32, k)
	count := make([]float64, k)
	total, squares := make([]float32, p), make([]float32, p)
	for c := range sums {
		sums[c] = make([]float32, p)
	}
	for _, t := range train {
		c := class[t]
		count[c]++
		to := sums[c]
		for v, x := range s.X[t] {
			to[v] += x
			total[v] += x
			squares[v] += x * x
		}
	}
	f := make([]float64, p)
	order := make([]int, 0, p)
	for v := range f {
		n := float64(len(train))
		mean := float64(total[v]) / n
		all := float64(squares[v]) - n*mean*mean
		if all <= 1e-9*n {
			continue
		}
		between := -n * mean * mean
		for c := range sums {
			if count[c] > 0 {
				between += float64(sums[c][v]) * float64(sums[c][v]) / count[c]
			}
		}
		f[v] = between / all // grows with F
		order = append(order, v)
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case f[a] > f[b]:
			return -1
		case f[a] < f[b]:
			return 1
		}
		return a - b
	})
	order = order[:min(want, len(order))]
	slices.Sort(order)
	return order
}
