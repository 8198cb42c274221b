package fmri

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"neuroscreen"
	"neuroscreen/internal/volume"
)

// Sphere is a place in MNI space whose mean signal is looked at.
type Sphere struct {
	Name     string
	Centre   [3]float64 // MNI, RAS mm
	Network  string     // "" for none
	RadiusMM float64    // in MNI mm
}

// Atlas is a list of spheres.
type Atlas struct {
	Name    string
	SHA256  string // of the table, hex
	Spheres []Sphere
}

// CoordinatesInvalid is the code of a table of spheres that can't be used.
const CoordinatesInvalid = "coordinates-invalid"

// DefaultRadiusMM of spheres whose table names none.
const DefaultRadiusMM = 6

// Limits of a table of spheres.
const (
	maxAtlasBytes = 1 << 20
	maxSpheres    = 500
	minSpheres    = 3
	maxRadiusMM   = 30
	maxName       = 100 // bytes
)

// mniBox holds every head in MNI space.
var mniBox = [3][2]float64{{-100, 100}, {-140, 110}, {-100, 120}}

func coordinatesError(format string, args ...any) error {
	return neuroscreen.FieldErrorf(neuroscreen.CodeInvalid, CoordinatesInvalid, "coordinates", format, args...)
}

// ReadAtlas reads a table of spheres, separated by tabs or commas: columns name,
// x, y and z (RAS mm in MNI152) and, if wanted, network and radius (mm), in any
// order. Lines that begin with # are remarks.
//
// Spheres may not overlap: what two of them share would connect them.
//
// Errors: CodeInvalid CoordinatesInvalid, which names the line and what to do;
// the reader's.
func ReadAtlas(name string, r io.Reader) (*Atlas, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAtlasBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxAtlasBytes {
		return nil, coordinatesError("the table is over %d kB long; give a table of at most %d spheres", maxAtlasBytes>>10, maxSpheres)
	}
	sum := sha256.Sum256(b)
	a := &Atlas{Name: name, SHA256: hex.EncodeToString(sum[:])}
	t, column, err := openTable(bytes.TrimPrefix(b, []byte("\ufeff")))
	if err != nil {
		return nil, err
	}
	lineOf := map[string]int{}
	var lines []int
	for {
		cells, line, err := t.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		s, err := sphereOf(cells, column, line)
		if err != nil {
			return nil, err
		}
		if before, ok := lineOf[s.Name]; ok {
			return nil, coordinatesError("line %d: the name %q stands in line %d already; give each sphere its own", line, s.Name, before)
		}
		lineOf[s.Name] = line
		for n, o := range a.Spheres {
			if d := distance(s.Centre, o.Centre); d < s.RadiusMM+o.RadiusMM {
				return nil, coordinatesError("line %d: the sphere overlaps the one of line %d (%.1f mm between the centres, radii %g and %g mm); make the radius smaller or leave one of them out",
					line, lines[n], d, s.RadiusMM, o.RadiusMM)
			}
		}
		if len(a.Spheres) == maxSpheres {
			return nil, coordinatesError("line %d: more than %d spheres; leave some out", line, maxSpheres)
		}
		a.Spheres, lines = append(a.Spheres, s), append(lines, line)
	}
	if len(a.Spheres) < minSpheres {
		return nil, coordinatesError("the table has %d spheres; give at least %d", len(a.Spheres), minSpheres)
	}
	return a, nil
}

// table reads records of a CSV or TSV and counts lines.
type table struct {
	csv     *csv.Reader
	columns int
}

// openTable reads the names of the columns and where each stands.
func openTable(b []byte) (*table, map[string]int, error) {
	t := &table{csv: csv.NewReader(bytes.NewReader(b))}
	t.csv.Comment, t.csv.FieldsPerRecord, t.csv.TrimLeadingSpace = '#', -1, true
	if bytes.ContainsRune(b, '\t') {
		t.csv.Comma, t.csv.TrimLeadingSpace = '\t', false
	}
	names, line, err := t.next()
	if err == io.EOF {
		return nil, nil, coordinatesError("the table is empty; its first line must name the columns: name, x, y, z and, if wanted, network and radius")
	} else if err != nil {
		return nil, nil, err
	}
	t.columns = len(names)
	column := map[string]int{}
	for n, name := range names {
		name = strings.ToLower(name)
		switch name {
		case "name", "x", "y", "z", "network", "radius":
		default:
			continue
		}
		if _, ok := column[name]; ok {
			return nil, nil, coordinatesError("line %d: two columns are called %s; rename one", line, name)
		}
		column[name] = n
	}
	for _, name := range []string{"name", "x", "y", "z"} {
		if _, ok := column[name]; !ok {
			return nil, nil, coordinatesError("line %d: there is no column %s; the first line must name the columns name, x, y and z, separated by commas or by tabs", line, name)
		}
	}
	return t, column, nil
}

// next returns a record, its cells trimmed, and its line; io.EOF at the end.
func (t *table) next() ([]string, int, error) {
	cells, err := t.csv.Read()
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, 0, coordinatesError("line %d: %v; write a name with quotation marks or separators as \"name\", with quotation marks inside doubled", e.StartLine, e.Err)
	} else if err != nil {
		return nil, 0, err
	}
	line, _ := t.csv.FieldPos(0)
	if t.columns != 0 && len(cells) != t.columns {
		return nil, 0, coordinatesError("line %d has %d columns, the first line %d; give every sphere the same columns", line, len(cells), t.columns)
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells, line, nil
}

func sphereOf(cells []string, column map[string]int, line int) (s Sphere, err error) {
	s.Name, s.RadiusMM = cells[column["name"]], DefaultRadiusMM
	if n, ok := column["network"]; ok {
		s.Network = cells[n]
	}
	if s.Name == "" {
		return s, coordinatesError("line %d: the name is empty; give each sphere its own", line)
	}
	for _, text := range []string{s.Name, s.Network} {
		if len(text) > maxName || !utf8.ValidString(text) {
			return s, coordinatesError("line %d: a name is longer than %d bytes or no UTF-8 text; shorten it or save the table as UTF-8", line, maxName)
		}
	}
	for a, axis := range []string{"x", "y", "z"} {
		text := cells[column[axis]]
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) {
			return s, coordinatesError("line %d: %s is %q, which is no number; give MNI millimetres with a decimal point", line, axis, shortened(text))
		}
		if v < mniBox[a][0] || v > mniBox[a][1] {
			return s, coordinatesError("line %d: %s is %g, outside of any head in MNI space (%g to %g); give millimetres, not voxels", line, axis, v, mniBox[a][0], mniBox[a][1])
		}
		s.Centre[a] = v
	}
	if n, ok := column["radius"]; ok && cells[n] != "" {
		if s.RadiusMM, err = strconv.ParseFloat(cells[n], 64); err != nil || !(s.RadiusMM >= 1 && s.RadiusMM <= maxRadiusMM) {
			return s, coordinatesError("line %d: the radius is %q; give 1 to %d mm, or leave it empty for %d", line, shortened(cells[n]), maxRadiusMM, DefaultRadiusMM)
		}
	}
	return s, nil
}

// shortened keeps a message readable whatever stood in the cell.
func shortened(s string) string {
	if len(s) > 20 {
		return strings.ToValidUTF8(s[:20], "") + "…"
	}
	return s
}

func distance(a, b [3]float64) float64 {
	return math.Sqrt((a[0]-b[0])*(a[0]-b[0]) + (a[1]-b[1])*(a[1]-b[1]) + (a[2]-b[2])*(a[2]-b[2]))
}

//go:embed atlas/default_mode.csv
var defaultMode []byte

// DefaultMode is the default network of Schaefer's parcellation: the centroids
// of its 24 parcels.
var DefaultMode = sync.OnceValue(func() *Atlas {
	a, err := ReadAtlas("Schaefer 2018, 100 parcels, 7 networks: default", bytes.NewReader(defaultMode))
	if err != nil {
		panic(err) // the table is embedded: a build that can't read it must not run
	}
	return a
})

// Within returns, for each sphere, the voxels of the series whose centres, taken
// to MNI space, lie no further from its own than its radius. The grid is the
// run's, toMNI leads from its mm to MNI's.
func Within(s *Series, g volume.Grid, toMNI volume.Affine, spheres []Sphere) [][]int {
	m := toMNI.Mul(g.Affine)
	of := make([][]int, len(spheres))
	for n, at := range s.Voxels {
		p := m.Apply([3]float64{float64(int(at) % g.Shape[0]), float64(int(at) / g.Shape[0] % g.Shape[1]), float64(int(at) / (g.Shape[0] * g.Shape[1]))})
		for i, o := range spheres {
			if distance(p, o.Centre) <= o.RadiusMM {
				of[i] = append(of[i], n)
			}
		}
	}
	return of
}

// sphereNodes are the spheres with voxels enough, with their mean signals; index
// says which spheres they are.
func sphereNodes(s *Series, spheres []Sphere, of [][]int) (nodes []Node, index []int) {
	for i, voxels := range of {
		if len(voxels) < minNodeVoxels {
			continue
		}
		node := Node{Voxels: len(voxels), Signal: make([]float64, s.Frames)}
		node.Name = spheres[i].Name
		for _, n := range voxels {
			for t, x := range s.Voxel(n) {
				node.Signal[t] += float64(x)
			}
		}
		for t := range node.Signal {
			node.Signal[t] /= float64(node.Voxels)
		}
		nodes, index = append(nodes, node), append(index, i)
	}
	return nodes, index
}

// Network is how spheres of the same name hang together.
type Network struct {
	Name  string
	Nodes int
	MeanZ float64 // mean of Fisher's z over all pairs
}

// Networks of at least two nodes, in the order of the table. z and network are
// of the same nodes.
func Networks(z [][]float64, network []string) (out []Network) {
	at := map[string]int{}
	members := [][]int{}
	for i, name := range network {
		if name == "" {
			continue
		}
		if _, ok := at[name]; !ok {
			at[name] = len(out)
			out, members = append(out, Network{Name: name}), append(members, nil)
		}
		n := at[name]
		members[n] = append(members[n], i)
	}
	kept := out[:0]
	for n, w := range out {
		w.Nodes = len(members[n])
		if w.Nodes < 2 {
			continue
		}
		for a, i := range members[n] {
			for _, j := range members[n][:a] {
				w.MeanZ += z[i][j]
			}
		}
		w.MeanZ /= float64(w.Nodes * (w.Nodes - 1) / 2)
		kept = append(kept, w)
	}
	return kept
}
