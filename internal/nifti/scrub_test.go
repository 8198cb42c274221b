package nifti_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/gzip"

	"neuroscreen/internal/nifti"
)

// everything that is decoded but where the data lie, NaN equal to NaN.
var sameImage = cmp.Options{cmpopts.IgnoreUnexported(nifti.Header{}), cmpopts.EquateNaNs()}

func gunzipped(t testing.TB, b []byte) (plain []byte, gzipped bool) {
	t.Helper()
	if !bytes.HasPrefix(b, []byte("\x1f\x8b")) {
		return b, false
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if z.Name != "" || z.Comment != "" || z.Extra != nil || z.ModTime.Unix() != 0 {
		t.Errorf("the gzip header says %+v", z.Header)
	}
	if plain, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return plain, true
}

// pairOf returns the .img of an .hdr among the fixtures, "" for a single file.
func pairOf(path string) string {
	if !strings.Contains(path, ".hdr") {
		return ""
	}
	return strings.Replace(path, ".hdr", ".img", 1)
}

// scrubbed returns the copies; hdr is nil for a single file.
func scrubbed(hdr, img []byte, lim nifti.Limits) (outHdr, outImg []byte, err error) {
	var h, i bytes.Buffer
	if hdr == nil {
		_, err = nifti.Scrub(&i, bytes.NewReader(img), lim)
		return nil, i.Bytes(), err
	}
	_, err = nifti.ScrubPair(&h, &i, bytes.NewReader(hdr), bytes.NewReader(img), lim)
	return h.Bytes(), i.Bytes(), err
}

func decode(hdr, img []byte, lim nifti.Limits) (*nifti.Image, error) {
	if hdr == nil {
		return nifti.Decode(bytes.NewReader(img), lim)
	}
	return nifti.DecodePair(bytes.NewReader(hdr), bytes.NewReader(img), lim)
}

// wantScrubbedSame fails unless the copy decodes as the original does, and is
// its own copy.
func wantScrubbedSame(t *testing.T, hdr, img []byte, lim nifti.Limits) (outHdr, outImg []byte) {
	t.Helper()
	want, err := decode(hdr, img, lim)
	if err != nil {
		t.Fatal(err)
	}
	outHdr, outImg, err = scrubbed(hdr, img, lim)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(outHdr, outImg, lim)
	if err != nil {
		t.Fatalf("the copy: %v", err)
	}
	if diff := cmp.Diff(want, got, sameImage); diff != "" {
		t.Errorf("the copy decodes otherwise (-original +copy):\n%s", diff)
	}
	hdr2, img2, err := scrubbed(outHdr, outImg, lim)
	if err != nil || !bytes.Equal(outHdr, hdr2) || !bytes.Equal(outImg, img2) {
		t.Errorf("the copy of the copy is another: %v", err)
	}
	return outHdr, outImg
}

// TestScrubKeepsWhatIsDecoded: every fixture, and each with names all over the
// bytes that the formats leave to text or to nothing.
func TestScrubKeepsWhatIsDecoded(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join("testdata", "fixtures", "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, path := range paths {
		if strings.Contains(path, ".img") {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			img, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var hdr []byte
			if p := pairOf(path); p != "" {
				hdr = img
				if img, err = os.ReadFile(p); err != nil {
					t.Fatal(err)
				}
			}
			outHdr, outImg := wantScrubbedSame(t, hdr, img, nifti.Limits{})
			_, wasZ := gunzippedAny(img)
			if _, isZ := gunzipped(t, outImg); wasZ != isZ {
				t.Errorf("gzipped: %v before, %v after", wasZ, isZ)
			}

			plainHdr, _ := gunzippedAny(hdr)
			plainImg, _ := gunzippedAny(img)
			im, err := decode(hdr, img, nifti.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			plantedHdr, plantedImg := plant(im, plainHdr, plainImg)
			again, err := decode(plantedHdr, plantedImg, nifti.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(im, again, sameImage); diff != "" {
				t.Fatalf("names in free text changed what is read, the test is wrong:\n%s", diff)
			}
			h2, i2 := wantScrubbedSame(t, plantedHdr, plantedImg, nifti.Limits{})
			wantNoName(t, h2, i2)
			h1, _ := gunzipped(t, outHdr)
			i1, _ := gunzipped(t, outImg)
			if !bytes.Equal(h1, h2) || !bytes.Equal(i1, i2) {
				t.Error("names in free text change the copy")
			}
		})
	}
}

// gunzippedAny is gunzipped for files that carry what they like.
func gunzippedAny(b []byte) ([]byte, bool) {
	if !bytes.HasPrefix(b, []byte("\x1f\x8b")) {
		return b, false
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		panic(err)
	}
	return out, true
}

const planted = "DOE^JANE 19500101 "

func wantNoName(t *testing.T, files ...[]byte) {
	t.Helper()
	for _, b := range files {
		for _, word := range []string{"DOE", "JANE", "1950"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%q is in the copy", word)
			}
		}
	}
}

// textFields are the bytes, from and to, that hold text or that no reader
// needs, by nifti1.h, nifti2.h and dbh.h.
var textFields = map[nifti.Format][][2]int{
	nifti.NIfTI1:  {{4, 40}, {56, 70}, {74, 76}, {120, 123}, {124, 252}, {328, 344}},
	nifti.NIfTI2:  {{80, 104}, {192, 344}, {496, 500}, {504, 540}},
	nifti.Analyze: {{4, 40}, {56, 70}, {74, 76}, {120, 124}, {132, 140}, {148, 253}, {263, 344}},
}

// plant writes a name into the text fields, an extension and the end of an
// image. Of a NIfTI without a form it takes the form's numbers too, and of each
// the dimensions that don't count.
func plant(im *nifti.Image, hdr, img []byte) (outHdr, outImg []byte) {
	text := bytes.Repeat([]byte(planted), 50)
	head := bytes.Clone(hdr)
	if hdr == nil {
		head = bytes.Clone(img)
	}
	for _, f := range textFields[im.Format] {
		copy(head[f[0]:f[1]], text)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if im.BigEndian {
		order = binary.BigEndian
	}
	dim, pixdim, width, used := 40, 76, 2, int(order.Uint16(head[40:]))
	if im.Format == nifti.NIfTI2 {
		dim, pixdim, width, used = 16, 104, 8, int(order.Uint64(head[16:]))
	}
	used = max(used, 3)
	copy(head[dim+width*(used+1):dim+width*8], text)
	copy(head[pixdim+max(4, width)*(used+1):pixdim+max(4, width)*8], text)
	forms := map[nifti.Format][2][2]int{nifti.NIfTI1: {{256, 280}, {280, 328}}, nifti.NIfTI2: {{352, 400}, {400, 496}}}[im.Format]
	if im.QformCode == 0 {
		copy(head[forms[0][0]:forms[0][1]], text)
	}
	if im.SformCode == 0 {
		copy(head[forms[1][0]:forms[1][1]], text)
	}
	if hdr != nil {
		return append(head, text...), append(bytes.Clone(img), text...)
	}
	// An extension: the flag, its size and code, the text; the data behind it.
	offset, size := 352, 348
	at := int(order.Uint32(head[108:]))
	if im.Format == nifti.NIfTI2 {
		offset, size = 544, 540
		at = int(order.Uint64(head[168:]))
	} else {
		at = int(math.Float32frombits(uint32(at)))
	}
	data := head[max(at, offset):]
	const room = 896
	out := append(bytes.Clone(head[:size]), 1, 0, 0, 0)
	out = append(out, text[:room]...)
	if im.Format == nifti.NIfTI2 {
		order.PutUint64(out[168:], uint64(offset+room))
	} else {
		order.PutUint32(out[108:], math.Float32bits(float32(offset+room)))
	}
	return nil, append(append(out, data...), text...)
}

func TestScrubDropsGzipHeader(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Name, z.Comment, z.Extra = planted, planted, []byte(planted)
	z.Write(append(file(t), planted...))
	z.Close()
	b.WriteString(planted) // after the stream
	_, out := wantScrubbedSame(t, nil, b.Bytes(), nifti.Limits{})
	plain, _ := gunzipped(t, out)
	wantNoName(t, out, plain)
	if !bytes.Equal(plain, file(t)) {
		t.Error("not the file without the name")
	}
}

// ANALYZE: SPM's origin is kept, text in its place is not.
func TestScrubAnalyzeOriginator(t *testing.T) {
	t.Parallel()
	hdr, err := os.ReadFile("testdata/fixtures/analyze.hdr")
	if err != nil {
		t.Fatal(err)
	}
	img, err := os.ReadFile("testdata/fixtures/analyze.img")
	if err != nil {
		t.Fatal(err)
	}
	copy(hdr[253:263], "DOE^JANE 19500101")
	out, _ := wantScrubbedSame(t, hdr, img, nifti.Limits{})
	wantNoName(t, out)
	if !bytes.Equal(out[253:263], make([]byte, 10)) {
		t.Errorf("originator is %q", out[253:263])
	}
}

// A pair's data may begin anywhere in the .img, and its header may claim to
// stand alone.
func TestScrubPairMovesDataToTheFront(t *testing.T) {
	t.Parallel()
	single := file(t)
	hdr := bytes.Clone(single[:348])
	_, img := wantScrubbedSame(t, hdr, append(bytes.Repeat([]byte(planted), 20)[:352], single[352:]...), nifti.Limits{})
	if !bytes.Equal(img, single[352:]) {
		t.Error("the copy of the .img is not its data")
	}
}

// TestScrubRefusesWhatDecodeRefuses compares the verdicts on every single-file
// fixture, whole, cut at every byte and with every byte of its compressed end
// changed.
func TestScrubRefusesWhatDecodeRefuses(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join("testdata", "fixtures", "*.nii*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	same := func(t *testing.T, b []byte) (ok bool) {
		t.Helper()
		_, want := nifti.Decode(bytes.NewReader(b), nifti.Limits{})
		_, got := nifti.Scrub(io.Discard, bytes.NewReader(b), nifti.Limits{})
		var w, g *nifti.Error
		errors.As(want, &w)
		errors.As(got, &g)
		if (want == nil) != (got == nil) || (w == nil) != (g == nil) || w != nil && w.Error() != g.Error() {
			t.Errorf("%d bytes: Scrub %v, Decode %v", len(b), got, want)
		}
		return got == nil
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !same(t, b) {
				t.Error("a whole file was refused")
			}
			for n := 0; n < len(b); n += 1 + len(b)/64 { // compressing the copy is not free
				same(t, b[:n])
			}
			if !strings.HasSuffix(path, ".gz") {
				return
			}
			for n := len(b) - 8; n < len(b); n++ {
				bad := bytes.Clone(b)
				bad[n] ^= 0x55
				if same(t, bad) {
					t.Errorf("a wrong checksum or length at byte %d was accepted", n)
				}
			}
		})
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestScrubPassesWriteErrorsOn(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	for name, b := range map[string][]byte{"plain": file(t), "gzipped": compress(file(t))} {
		if _, err := nifti.Scrub(brokenWriter{full}, bytes.NewReader(b), nifti.Limits{}); !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := nifti.ScrubPair(brokenWriter{full}, io.Discard, bytes.NewReader(file(t)[:348]), bytes.NewReader(file(t)), nifti.Limits{}); !errors.Is(err, full) {
		t.Errorf("header: %v", err)
	}
}

// FuzzScrub: the copy of whatever is read decodes as the original does.
func FuzzScrub(f *testing.F) {
	fixtures(f, func(_ string, b []byte) { f.Add(b, []byte{}) })
	fixtures(f, func(name string, b []byte) {
		if p := pairOf(name); p != "" {
			img, err := os.ReadFile(filepath.Join("testdata", "fixtures", p))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(img, b)
		}
	})
	f.Fuzz(func(t *testing.T, img, hdr []byte) {
		if len(hdr) == 0 {
			hdr = nil
		}
		if _, err := decode(hdr, img, fuzzLimits); err != nil {
			wantFileError(t, err)
			if _, _, scrubErr := scrubbed(hdr, img, fuzzLimits); scrubErr == nil {
				if e, _ := errors.AsType[*nifti.Error](err); e.Type != nifti.TypeTooLarge { // a series
					t.Fatalf("Scrub copies what Decode refuses: %v", err)
				}
			} else {
				wantFileError(t, scrubErr)
			}
			return
		}
		wantScrubbedSame(t, hdr, img, fuzzLimits)
	})
}
