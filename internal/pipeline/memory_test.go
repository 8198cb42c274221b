package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

// helperScan makes this program analyse one file, print what the kernel says of
// it, and end.
const helperScan = "PIPELINE_TEST_HELPER_SCAN"

func TestMain(m *testing.M) {
	if path := os.Getenv(helperScan); path != "" {
		if err := analyzeOnce(path); err != nil {
			panic(err)
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			panic(err)
		}
		os.Stdout.Write(status)
		return
	}
	os.Exit(m.Run())
}

func analyzeOnce(path string) error {
	e, err := New("test", nifti.Limits{})
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	age := 45.0
	_, err = e.Analyze(context.Background(), Input{Image: f, Metadata: neuroscreen.Metadata{AgeYears: &age, Sex: neuroscreen.Male, Modality: neuroscreen.T1w}})
	return err
}

// TestMemoryIsEnough: an analysis takes no more than its header lets expect,
// and the estimate is not so high that it keeps scans waiting for nothing.
func TestMemoryIsEnough(t *testing.T) {
	if testing.Short() {
		t.Skip("analyses two heads")
	}
	head, err := nifti.ReadFile(healthy)
	if err != nil {
		t.Fatal(err)
	}
	for _, finer := range []int{1, 2} {
		path := filepath.Join(t.TempDir(), "head.nii.gz")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		g, data := refine(head, finer)
		if err := nifti.Write(f, g, data); err != nil {
			t.Fatal(err)
		}
		f.Close()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperScan+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		// Not its ru_maxrss: that begins with the peak of this process.
		_, rest, _ := strings.Cut(string(out), "VmHWM:")
		var took int64
		if _, err := fmt.Sscan(rest, &took); err != nil {
			t.Fatalf("no peak in %q: %v", out, err)
		}
		took <<= 10 // it is in kB
		h := header(t, path)
		estimate := RestMemory + Memory(h, neuroscreen.Metadata{Modality: neuroscreen.T1w})
		if estimate == RestMemory {
			t.Fatal("the header is refused")
		}
		t.Logf("%v voxels: %d MB, estimated %d MB", g.Shape, took/1e6, estimate/1e6)
		if took > estimate || took < estimate/2 {
			t.Errorf("%v voxels took %d MB, estimated %d MB", g.Shape, took/1e6, estimate/1e6)
		}
	}
}

func header(t *testing.T, path string) *nifti.Header {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := nifti.DecodeHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// refine cuts each voxel into n along each axis.
func refine(head *nifti.Image, n int) (nifti.Geometry, []int16) {
	s := head.Shape
	g := nifti.Geometry{Shape: []int{n * s[0], n * s[1], n * s[2]}, Affine: head.Affine}
	for i := range 3 {
		for j := range 3 {
			g.Affine[i][j] /= float64(n)
		}
	}
	data := make([]int16, 0, len(head.Data)*n*n*n)
	for k := range g.Shape[2] {
		for j := range g.Shape[1] {
			for i := range g.Shape[0] {
				data = append(data, int16(head.Data[i/n+s[0]*(j/n+s[1]*(k/n))]))
			}
		}
	}
	return g, data
}

func TestMemoryOfARefusedHeader(t *testing.T) {
	if Memory(header(t, healthy), neuroscreen.Metadata{Modality: neuroscreen.BOLD}) != 0 {
		t.Error("a scan that is refused by its header waits for memory")
	}
}

// A run's frames are most of what it takes.
func TestMemoryOfARun(t *testing.T) {
	const voxels = 80 * 80 * 40
	of := func(frames int) int64 {
		var b bytes.Buffer
		g := nifti.Geometry{Shape: []int{80, 80, 40, frames}, Affine: nifti.Affine{{3, 0, 0, -120}, {0, 3, 0, -120}, {0, 0, 3, -60}, {0, 0, 0, 1}}, Code: 1, TR: 2}
		if err := nifti.Write(&b, g, make([]uint8, voxels*frames)); err != nil {
			t.Fatal(err)
		}
		h, err := nifti.DecodeHeader(&b)
		if err != nil {
			t.Fatal(err)
		}
		age := 45.0
		return Memory(h, neuroscreen.Metadata{Modality: neuroscreen.BOLD, AgeYears: &age})
	}
	few, many := of(10), of(110)
	// A brain of 1.4 l in voxels of 27 mm3, as float32.
	if least := int64(4 * 100 * (1_400_000 / 27)); few == 0 || many-few < least || many-few > 3*least {
		t.Errorf("100 frames more are estimated at %d MB, the brain's take %d", (many-few)/1e6, least/1e6)
	}
}
