package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/words"
)

// matrixZ is where the colours of a connectome end: Fisher's z of 1.5 is a
// correlation of .91.
const matrixZ = 1.5

// Colours of a connectome below and over 0 and at it: blue and orange are told
// apart by nearly everybody, and a dash tells them apart in grey.
var (
	matrixBelow = paint{tone{28, 94, 166}, tone{96, 176, 255}}
	matrixZero  = paint{tone{240, 242, 244}, tone{34, 40, 47}}
	matrixOver  = paint{tone{190, 82, 6}, tone{255, 168, 66}}
)

// divergent is the colour of z.
func divergent(z float64) paint {
	share := min(math.Abs(z)/matrixZ, 1)
	to := matrixOver
	if z < 0 {
		to = matrixBelow
	}
	mix := func(a, b tone) (t tone) {
		for n := range t {
			t[n] = int(math.Round(float64(a[n]) + share*float64(b[n]-a[n])))
		}
		return t
	}
	return paint{mix(matrixZero.light, to.light), mix(matrixZero.dark, to.dark)}
}

// matrixOrder groups structures: grey of the left, the right and the midline,
// then what holds no neurons. Each group is in the order from the outside in.
func matrixOrder(nodes []string) [][]int {
	rank := []string{"Cerebral-Cortex", "Hippocampus", "Amygdala", "Accumbens-area", "Caudate", "Putamen", "Pallidum", "Thalamus", "VentralDC", "Cerebellum-Cortex"}
	type key struct{ group, at int }
	of := func(name string) key {
		s, ok := anatomy.ByName(name)
		bare := anatomy.Bare(name)
		at := slices.Index(rank, bare)
		switch {
		case !ok || at < 0 && s.Name != "Brain-Stem":
			return key{3, 0}
		case s.Side == anatomy.Left:
			return key{0, at}
		case s.Side == anatomy.Right:
			return key{1, at}
		}
		return key{2, 0}
	}
	order := make([]int, len(nodes))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int {
		ka, kb := of(nodes[a]), of(nodes[b])
		if ka.group != kb.group {
			return ka.group - kb.group
		}
		return ka.at - kb.at
	})
	var groups [][]int
	last := -1
	for _, n := range order {
		if g := of(nodes[n]).group; g != last {
			groups, last = append(groups, nil), g
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], n)
	}
	return groups
}

// sidedName has the side behind it, so that names can be told apart by their
// beginning.
func sidedName(structure string) string {
	name := words.Structure(anatomy.Bare(structure))
	switch {
	case strings.HasPrefix(structure, "Left-"):
		return name + " L"
	case strings.HasPrefix(structure, "Right-"):
		return name + " R"
	}
	return name
}

const (
	cell, groupGap   = 14.0, 5.0
	cellInset        = 0.5
	smallCell        = 5.0 // of what can't be told from 0
	matrixName       = 12.0
	matrixNameRoom   = 178.0
	certainty        = 2.0 // standard errors
	legendW, legendH = 150.0, 11.0
)

// matrixFigure draws the lower half of a connectome: a structure's row lies to
// the left of its name, its column below it. What lies within two standard
// errors of 0 is small, what is below 0 has a dash. It reports false without a
// connectome.
func matrixFigure(c *neuroscreen.FMRIConnectome) (*figure, bool) {
	if c == nil || len(c.Nodes) < 2 || len(c.FisherZ) != len(c.Nodes) {
		return nil, false
	}
	f := &figure{title: "Connectome of the structures"}
	var order []int
	var offset []float64
	at := 0.0
	for g, group := range matrixOrder(c.Nodes) {
		if g > 0 {
			at += groupGap
		}
		for _, n := range group {
			order, offset = append(order, n), append(offset, at)
			at += cell
		}
	}
	f.w, f.h = at+matrixNameRoom, at+2
	for i, a := range order {
		for j, b := range order[:i] {
			if len(c.FisherZ[a]) <= b {
				return nil, false
			}
			z := c.FisherZ[a][b]
			size := cell - 2*cellInset
			if math.Abs(z) < certainty*c.StandardError {
				size = smallCell
			}
			x, y := offset[j]+(cell-size)/2, offset[i]+(cell-size)/2
			f.rect(x, y, size, size, divergent(z))
			if z < 0 && size > smallCell {
				p := inkPaint
				if z < -matrixZ/2 {
					p = paint{tone{255, 255, 255}, tone{0, 0, 0}}
				}
				f.rect(x+3, y+size/2-0.7, size-6, 1.4, p)
			}
		}
		f.rect(offset[i]+4, offset[i]+4, cell-8, cell-8, dimPaint)
		f.write(offset[i]+cell+3, offset[i]+cell-3, start, matrixName, inkPaint, sidedName(c.Nodes[a]))
	}
	f.matrixKey(f.w, c)
	return f, true
}

// matrixKey stands where the upper half would be.
func (f *figure) matrixKey(right float64, c *neuroscreen.FMRIConnectome) {
	left, y := right-legendW-20, 14.0
	f.writeBold(left, y, start, matrixName+1, inkPaint, "Fisher’s z")
	y += 8
	const steps = 25
	for n := range steps {
		z := matrixZ * (2*float64(n)/(steps-1) - 1)
		f.rect(left+float64(n)*legendW/steps, y, legendW/steps+0.1, legendH, divergent(z))
	}
	for _, z := range []float64{-matrixZ, 0, matrixZ} {
		f.write(left+legendW*(z+matrixZ)/(2*matrixZ), y+legendH+12, middle, matrixName, dimPaint, zscore(z))
	}
	y += legendH + 32
	f.rect(left, y-9, cell-1, cell-1, divergent(-matrixZ*0.4))
	f.rect(left+3, y-9+5.8, cell-7, 1.4, inkPaint)
	f.write(left+cell+5, y+1, start, matrixName, dimPaint, "dash: below 0")
	y += 19
	f.rect(left+4, y-5, smallCell, smallCell, divergent(matrixZ*0.3))
	f.write(left+cell+5, y+1, start, matrixName, dimPaint, fmt.Sprintf("small: within ±%.2f of 0,", certainty*c.StandardError))
	f.write(left+cell+5, y+14, start, matrixName, dimPaint, "two standard errors")
}

// ConnectomePicture draws a connectome as a PNG; nil without one.
func ConnectomePicture(m *neuroscreen.FMRI) []byte {
	f, ok := matrixFigure(shownConnectome(m))
	if !ok {
		return nil
	}
	return f.picture()
}

// shownConnectome is the one with the global signal left in; nil without one.
func shownConnectome(m *neuroscreen.FMRI) *neuroscreen.FMRIConnectome {
	for n := range m.Connectomes {
		if !m.Connectomes[n].GlobalSignalRemoved {
			return &m.Connectomes[n]
		}
	}
	return nil
}
