package synth

import (
	"math"
	"math/bits"
)

// random is splitmix64 (Steele, Lea and Flood 2014,
// doi:10.1145/2660193.2660195): fast, seekable, and the same everywhere.
type random uint64

// stream starts an independent sequence for one purpose of one sample, so that
// drawing more for one purpose changes nothing else.
func stream(seed, sample, purpose uint64) random {
	r := random(seed)
	r = random(r.next() ^ sample*0x9e3779b97f4a7c15)
	r = random(r.next() ^ purpose<<32)
	return random(r.next())
}

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// float is uniform in 0..1, 1 excluded.
func (r *random) float() float64 { return float64(r.next()>>11) / (1 << 53) }

func (r *random) intN(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

func (r *random) chance(p float64) bool { return r.float() < p }

func (r *random) in(x Range) float64 { return x.Lo + (x.Hi-x.Lo)*r.float() }

// normal is standard normal (Box and Muller).
func (r *random) normal() float64 {
	u, v := 1-r.float(), r.float()
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}

// quantiles of the standard normal at the middle of 4096 equal steps, scaled to
// variance 1; the outermost are 3.7. Voxel noise picks among them.
const quantileBits = 12

var quantiles = func() (q [1 << quantileBits]float32) {
	sum := 0.0
	for i := range q {
		x := math.Sqrt2 * math.Erfinv(2*(float64(i)+.5)/float64(len(q))-1)
		sum += x * x
		q[i] = float32(x)
	}
	scale := float32(1 / math.Sqrt(sum/float64(len(q))))
	for i := range q {
		q[i] *= scale
	}
	return q
}()

// normals fills dst with standard normal noise.
func (r *random) normals(dst []float32) {
	const mask = 1<<quantileBits - 1
	for len(dst) >= 5 {
		v, d := r.next(), dst[:5]
		d[0] = quantiles[v&mask]
		d[1] = quantiles[v>>12&mask]
		d[2] = quantiles[v>>24&mask]
		d[3] = quantiles[v>>36&mask]
		d[4] = quantiles[v>>48&mask]
		dst = dst[5:]
	}
	v := r.next()
	for i := range dst {
		dst[i] = quantiles[v&mask]
		v >>= quantileBits
	}
}
