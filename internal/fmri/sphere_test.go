package fmri

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/testdata"
	"neuroscreen/internal/volume"
)

// TestSpheresEqualNilearn: time series, connectome and within-network means of
// the same spheres in the run's own space, and in a head that is turned and
// scaled against MNI's.
func TestSpheresEqualNilearn(t *testing.T) {
	f := load(t).Spheres
	var spheres []Sphere
	for n, p := range f.Seeds {
		spheres = append(spheres, Sphere{Name: fmt.Sprint(n), Centre: p, Network: f.Network[n], RadiusMM: f.Radius})
	}
	toMNI := volume.Affine{{1.1, 0.05, 0, -3}, {-0.04, 1.02, 0.2, 5}, {0, -0.2, 1.05, 1}, {0, 0, 0, 1}}
	for name, m := range map[string]volume.Affine{"in MNI space": volume.Identity, "in its own": toMNI} {
		t.Run(name, func(t *testing.T) {
			s := &Series{Frames: f.Frames, Voxels: f.Voxels, Data: f.Data}
			g := volume.Grid{Shape: f.Shape, Affine: m.Inverse().Mul(f.Affine)}
			nodes, index := sphereNodes(s, spheres, Within(s, g, m, spheres))
			if !slices.Equal(index, []int{0, 1, 2, 3, 4}) {
				t.Fatalf("nodes %v", index)
			}
			var signals []float64
			for _, n := range nodes {
				signals = append(signals, n.Signal...)
			}
			wantClose(t, "signals", signals, f.Signals, 1e-6)
			c := Connect(nodes, NewDesign(all(f.Frames)))
			wantClose(t, "r", slices.Concat(c.R...), f.R, 1e-5) // nilearn keeps signals as float32
			wantClose(t, "z", slices.Concat(c.Z...), f.Z, 1e-5)
			got := Networks(c.Z, f.Network)
			if len(got) != 2 || got[0].Name != "A" || got[0].Nodes != 3 || got[1].Nodes != 2 {
				t.Fatalf("networks %+v", got)
			}
			wantClose(t, "within networks", []float64{got[0].MeanZ, got[1].MeanZ}, f.Within, 1e-5)
		})
	}
}

func TestSpheresOutsideAreNoNodes(t *testing.T) {
	s := seriesOf(3, make([]float32, 3*27))
	g := volume.Grid{Shape: [3]int{3, 3, 3}, Affine: volume.Scaling([3]float64{3, 3, 3})}
	spheres := []Sphere{{Name: "in", Centre: [3]float64{3, 3, 3}, RadiusMM: 4}, {Name: "out", Centre: [3]float64{60, 3, 3}, RadiusMM: 6},
		{Name: "at the rim", Centre: [3]float64{-5, 3, 3}, RadiusMM: 5.5}}
	of := Within(s, g, volume.Identity, spheres)
	if len(of[0]) != 7 || len(of[1]) != 0 || len(of[2]) != 1 {
		t.Errorf("%d, %d and %d voxels", len(of[0]), len(of[1]), len(of[2]))
	}
	if _, index := sphereNodes(s, spheres, of); !slices.Equal(index, []int{0}) {
		t.Errorf("nodes %v", index)
	}
}

func TestDefaultMode(t *testing.T) {
	a := DefaultMode()
	if len(a.Spheres) != 24 {
		t.Fatalf("%d seeds", len(a.Spheres))
	}
	for _, s := range a.Spheres {
		if left := strings.HasPrefix(s.Name, "LH_"); left != (s.Centre[0] < 0) || s.Network != "Default" || s.RadiusMM != 6 {
			t.Errorf("%+v", s)
		}
	}
}

// TestDefaultModeTable: the seeds are the rows that may be shipped, unchanged.
func TestDefaultModeTable(t *testing.T) {
	f, err := os.Open(testdata.Shared(t, "norms", "dmn_coordinates.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range DefaultMode().Spheres {
		row := fmt.Sprintf(" %s,%g,%g,%g,Yeo7 Default,ThomasYeoLab/CBIG", s.Name, s.Centre[0], s.Centre[1], s.Centre[2])
		if !strings.Contains(string(b), row) {
			t.Errorf("no row %q", row)
		}
	}
}

func TestNetworks(t *testing.T) {
	z := [][]float64{{0, 1, 2, 9}, {1, 0, 4, 9}, {2, 4, 0, 9}, {9, 9, 9, 0}}
	got := Networks(z, []string{"a", "a", "a", "b"})
	if len(got) != 1 || got[0] != (Network{"a", 3, 7.0 / 3}) {
		t.Errorf("%+v", got)
	}
	if got := Networks(z, []string{"", "", "b", "b"}); len(got) != 1 || got[0] != (Network{"b", 2, 9}) {
		t.Errorf("%+v", got)
	}
}

func TestReadAtlas(t *testing.T) {
	for _, c := range []struct {
		name, table string
		want        []Sphere
	}{
		{"commas", "name,x,y,z\nA,-6,-52,34\nB,6,48,0\nC,50,6,-18\n",
			[]Sphere{{"A", [3]float64{-6, -52, 34}, "", 6}, {"B", [3]float64{6, 48, 0}, "", 6}, {"C", [3]float64{50, 6, -18}, "", 6}}},
		{"tabs, all columns, another order, one more", "\ufeff# from a paper\r\nZ\tradius\tlabel\tName\tx\ty\tnetwork\r\n34\t5\tl\tA, left\t-6\t-52\tdmn\r\n\r\n0\t\tl\tB\t6\t48.5\t\r\n-18\t8\tl\tC\t50\t6\tdmn\r\n",
			[]Sphere{{"A, left", [3]float64{-6, -52, 34}, "dmn", 5}, {"B", [3]float64{6, 48.5, 0}, "", 6}, {"C", [3]float64{50, 6, -18}, "dmn", 8}}},
		{"quotation marks", "name, x, y, z\n\"A \"\"1\"\", left\", -6, -52, 34\nB, 6, 48, 0\nC, 50, 6, -18",
			[]Sphere{{`A "1", left`, [3]float64{-6, -52, 34}, "", 6}, {"B", [3]float64{6, 48, 0}, "", 6}, {"C", [3]float64{50, 6, -18}, "", 6}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := ReadAtlas("mine", strings.NewReader(c.table))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.Spheres, c.want) || a.Name != "mine" || len(a.SHA256) != 64 {
				t.Errorf("%+v, want %+v", a, c.want)
			}
		})
	}
}

func TestReadAtlasSaysWhatToDo(t *testing.T) {
	const head, rest = "name,x,y,z,radius\n", "B,6,48,0,\nC,50,6,-18,\n"
	many := head
	for n := range maxSpheres + 1 {
		many += fmt.Sprintf("n%d,%d,%d,%d,1\n", n, n%20*3, n/20%20*3, n/400*3)
	}
	for _, c := range []struct{ name, table, want string }{
		{"empty", "", "first line must name the columns"},
		{"remarks alone", "# nothing\n", "first line must name the columns"},
		{"no header", "A,1,2,3\nB,1,2,3\n", "line 1: there is no column name"},
		{"a column twice", "name,x,y,z,X\n", "line 1: two columns are called x"},
		{"semicolons", "name;x;y;z\nA;1;2;3\n", "separated by commas or by tabs"},
		{"a column too few", head + "A,1,2,3\n", "line 2 has 4 columns, the first line 5"},
		{"no number", head + "# here\nA,1,two,3,\n", `line 3: y is "two"`},
		{"a decimal comma", head + "A,1,\"2,5\",3,\n", `line 2: y is "2,5", which is no number; give MNI millimetres with a decimal point`},
		{"NaN", head + "A,NaN,2,3,\n", "line 2: x is"},
		{"infinite", head + "A,1,-Inf,3,\n", "line 2: y is -Inf, outside of any head"},
		{"voxels", head + "A,45,109,160,\n", "line 2: z is 160, outside of any head in MNI space (-100 to 120); give millimetres, not voxels"},
		{"no name", head + " ,1,2,3,\n", "line 2: the name is empty"},
		{"a name twice", head + "A,1,2,3,\nA,40,2,3,\n", `line 3: the name "A" stands in line 2 already`},
		{"no text", head + "A\xff,1,2,3,\n", "save the table as UTF-8"},
		{"a radius of 0", head + "A,1,2,3,0\n", `line 2: the radius is "0"; give 1 to 30 mm`},
		{"overlap", head + "A,1,2,3,\nB,1,2,13,5\n" + rest, "line 3: the sphere overlaps the one of line 2 (10.0 mm between the centres, radii 5 and 6 mm)"},
		{"two spheres", head + rest, "the table has 2 spheres; give at least 3"},
		{"too many", many, "more than 500 spheres"},
		{"no end", head + strings.Repeat("x", maxAtlasBytes), "over 1024 kB"},
		{"an open quotation", head + "\"A,1,2,3,\n" + rest, "line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadAtlas("mine", strings.NewReader(c.table))
			e, ok := errors.AsType[*neuroscreen.Error](err)
			if !ok || e.Code != neuroscreen.CodeInvalid || e.Type != CoordinatesInvalid || !strings.Contains(e.Message, c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	broken := errors.New("disk")
	if _, err := ReadAtlas("mine", errorReader{broken}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// FuzzReadAtlas: what is read can be used, and what can't be says why.
func FuzzReadAtlas(f *testing.F) {
	f.Add("name,x,y,z\nA,-6,-52,34\nB,6,48,0\nC,50,6,-18\n")
	f.Add("# r\nname\tx\ty\tz\tnetwork\tradius\nA\t-6\t-52\t34\td\t5\nB\t6\t48\t0\t\t\nC\t50\t6\t-18\td\t8\n")
	f.Add("name,x,y,z\n\"A\"\"\",1e1,0x1p3,_\n")
	f.Add("name,x,y,z,radius\n\"A,1,2,3")
	f.Fuzz(func(t *testing.T, table string) {
		a, err := ReadAtlas("fuzz", strings.NewReader(table))
		if err != nil {
			if e, ok := errors.AsType[*neuroscreen.Error](err); !ok || e.Type != CoordinatesInvalid || e.Message == "" {
				t.Fatalf("error %v", err)
			}
			return
		}
		if len(a.Spheres) < minSpheres || len(a.Spheres) > maxSpheres {
			t.Fatalf("%d spheres", len(a.Spheres))
		}
		for i, s := range a.Spheres {
			for x, v := range s.Centre {
				if !(v >= mniBox[x][0] && v <= mniBox[x][1]) {
					t.Fatalf("%+v", s)
				}
			}
			if s.Name == "" || !(s.RadiusMM >= 1 && s.RadiusMM <= maxRadiusMM) || math.IsNaN(s.Centre[0]) {
				t.Fatalf("%+v", s)
			}
			for _, o := range a.Spheres[:i] {
				if o.Name == s.Name || distance(o.Centre, s.Centre) < o.RadiusMM+s.RadiusMM {
					t.Fatalf("%+v and %+v", o, s)
				}
			}
		}
	})
}
