package segment

import (
	"math/bits"

	"neuroscreen/internal/anatomy"
)

// Likely holds the most likely classes of a voxel with their posteriors, the
// likeliest first. What they leave of 1 is of classes that matter nowhere. At a
// border more than four are never in question, and 33 would take eight times the
// memory.
type Likely struct {
	Class [likely]uint8
	P     [likely]float32
}

const (
	likely     = 4
	negligible = 1e-3 // posteriors up to this decide nothing and are not kept
)

// choose the likeliest of a voxel's posteriors: of background, and of the
// classes k whose bit k-1 is set and whose posterior is p[k-1].
func (l *Likely) choose(background float32, classes uint32, p []float32) {
	*l = Likely{P: [likely]float32{background}}
	for ; classes != 0; classes &= classes - 1 {
		k := bits.TrailingZeros32(classes)
		l.insert(uint8(k+1), p[k])
	}
}

// insert a class that is not among them, in the place of the least likely.
func (l *Likely) insert(class uint8, p float32) {
	i := likely - 1
	if p <= l.P[i] {
		return
	}
	for ; i > 0 && p > l.P[i-1]; i-- {
		l.Class[i], l.P[i] = l.Class[i-1], l.P[i-1]
	}
	l.Class[i], l.P[i] = class, p
}

// of returns the posterior of a class.
func (l *Likely) of(class uint8) float32 {
	for i, c := range l.Class {
		if c == class {
			return l.P[i]
		}
	}
	return 0
}

// without the likeliest class: the others, as likely as they are if it is not
// that one.
func (l *Likely) without() (m Likely) {
	rest := 1 - l.P[0]
	if l.P[1] == 0 || rest <= 0 {
		return Likely{P: [likely]float32{1}}
	}
	for i := range likely - 1 {
		m.Class[i], m.P[i] = l.Class[i+1], l.P[i+1]/rest
	}
	return m
}

// mean of two opinions on a voxel, of which the other has this weight. names[c]
// is the other's name for class c, and the reverse.
func (l *Likely) mean(other *Likely, weight float32, names *[anatomy.NumClasses]uint8) (m Likely) {
	for i, c := range l.Class {
		if p := l.P[i]; p > 0 {
			m.insert(c, p+weight*(other.of(names[c])-p))
		}
	}
	for i, c := range other.Class {
		if p := other.P[i]; p > 0 && l.of(names[c]) == 0 {
			m.insert(names[c], weight*p)
		}
	}
	return m
}

// mirrored says the same of the voxel in the mirror image.
func (l Likely) mirrored() Likely {
	for i, c := range l.Class {
		l.Class[i] = otherSide[c]
	}
	return l
}

// sameSide leaves classes as they are.
var sameSide = func() (m [anatomy.NumClasses]uint8) {
	for k := range m {
		m[k] = uint8(k)
	}
	return m
}()

// otherSide is the class of the same structure on the other side.
var otherSide = func() (m [anatomy.NumClasses]uint8) {
	for k, s := range anatomy.Structures {
		m[k] = uint8(s.Mirror)
	}
	return m
}()
