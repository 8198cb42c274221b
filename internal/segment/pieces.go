package segment

import "neuroscreen/internal/anatomy"

// stretch is a row's voxels from to to-1, all of one class.
type stretch struct {
	from, to int32
	piece    int32 // a stretch of the same piece that comes earlier, or this one
	class    uint8
}

// strays lists the voxels outside the largest face-connected piece of each
// class, but for classes that may lie in several.
func strays(labels []uint8, shape [3]int, several *[anatomy.NumClasses]bool) []int {
	nx, ny := shape[0], shape[1]
	rows := make([]int32, 1, 1+ny*shape[2]) // where each row's stretches begin
	var all []stretch
	for start := 0; start < len(labels); start += nx {
		row := labels[start:][:nx]
		for x := 0; x < nx; {
			c, from := row[x], x
			for x++; x < nx && row[x] == c; x++ {
			}
			if !several[c] {
				all = append(all, stretch{int32(from), int32(x), int32(len(all)), c})
			}
		}
		rows = append(rows, int32(len(all)))
	}
	first := func(i int32) int32 { // of the piece that stretch i is in
		for all[i].piece != i {
			all[i].piece = all[all[i].piece].piece
			i = all[i].piece
		}
		return i
	}
	// join the pieces of two rows' stretches where they touch.
	join := func(r, s int) {
		i, iEnd, j, jEnd := rows[r], rows[r+1], rows[s], rows[s+1]
		for i < iEnd && j < jEnd {
			a, b := &all[i], &all[j]
			if a.class == b.class && a.from < b.to && b.from < a.to {
				p, q := first(i), first(j)
				all[max(p, q)].piece = min(p, q)
			}
			if a.to < b.to {
				i++
			} else {
				j++
			}
		}
	}
	for r := range len(rows) - 1 {
		if r%ny > 0 {
			join(r-1, r)
		}
		if r >= ny {
			join(r-ny, r)
		}
	}
	size := make([]int32, len(all)) // of the piece that begins with a stretch
	for i := range all {
		size[first(int32(i))] += all[i].to - all[i].from
	}
	var largest [anatomy.NumClasses]int32
	for c := range largest {
		largest[c] = -1
	}
	for i := range all {
		if l := &largest[all[i].class]; size[i] > 0 && (*l < 0 || size[i] > size[*l]) {
			*l = int32(i)
		}
	}
	var out []int
	for r := range len(rows) - 1 {
		for i := rows[r]; i < rows[r+1]; i++ {
			if first(i) == largest[all[i].class] {
				continue
			}
			for x := all[i].from; x < all[i].to; x++ {
				out = append(out, r*nx+int(x))
			}
		}
	}
	return out
}
