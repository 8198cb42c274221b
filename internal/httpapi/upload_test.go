package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"

	"neuroscreen"
	"neuroscreen/internal/nifti"
)

// image is a small valid scan; different seeds give different bytes.
func image(t testing.TB, seed int16) []byte {
	t.Helper()
	data := make([]int16, 8*9*10)
	for n := range data {
		data[n] = int16(n) + seed
	}
	var buf bytes.Buffer
	g := nifti.Geometry{Shape: []int{8, 9, 10}, Affine: nifti.Affine{{-1, 0, 0, 4}, {0, 1, 0, -4}, {0, 0, 1, -5}, {0, 0, 0, 1}}}
	if err := nifti.Write(&buf, g, data); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gunzip(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// metadata is valid; with nil as its value a field is left out.
func metadata(changes map[string]any) []byte {
	m := map[string]any{"subject_id": "SUBJ-17", "age_years": 71, "sex": "F", "modality": "T1w"}
	for k, v := range changes {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

type part struct {
	name, file string
	body       []byte
	digest     string
}

func multipartBody(parts ...part) (contentType string, body []byte) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, p := range parts {
		h := textproto.MIMEHeader{}
		d := fmt.Sprintf(`form-data; name="%s"`, p.name)
		if p.file != "" {
			d += fmt.Sprintf(`; filename="%s"`, p.file)
		}
		h.Set("Content-Disposition", d)
		if p.digest != "" {
			h.Set("Content-Digest", p.digest)
		}
		pw, err := w.CreatePart(h)
		if err == nil {
			_, err = pw.Write(p.body)
		}
		if err != nil {
			panic(err)
		}
	}
	w.Close()
	return w.FormDataContentType(), buf.Bytes()
}

// post sends parts with the site's uploader key.
func (e *env) post(s *site, parts []part, edit ...func(*http.Request)) *answer {
	e.Helper()
	ct, body := multipartBody(parts...)
	return e.do("POST", "/v1/scans", s.keys[uploader], append([]func(*http.Request){withBody(ct, body)}, edit...)...)
}

// upload posts a valid scan and returns it.
func (e *env) upload(s *site, subject string, seed int16) Scan {
	e.Helper()
	a := e.post(s, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": subject})}, {name: "scan", file: "x.nii.gz", body: image(e, seed)}})
	a.want(202, "")
	var scan Scan
	a.json(&scan)
	return scan
}

func TestUploadAccepted(t *testing.T) {
	e := setup(t)
	gz := image(t, 1)
	plain := gunzip(t, image(t, 2))
	single := gunzip(t, image(t, 3))
	// A pair: the magic says so and the data begin at 0.
	hdr, img := bytes.Clone(single[:348]), single[352:]
	copy(hdr[344:], "ni1\x00")
	copy(hdr[108:], []byte{0, 0, 0, 0})

	meta := func(subject string) part {
		return part{name: "metadata", body: metadata(map[string]any{"subject_id": subject})}
	}
	query := "?" + url.Values{"subject_id": {"raw"}, "age_years": {"71.5"}, "sex": {"M"}, "modality": {"T1w"}, "contrast_agent": {"false"},
		"sop_instance_uids": {"1.2.3", "1.2.4"}, "accession_number": {"A 1"}}.Encode()

	for name, tt := range map[string]struct {
		subject string
		bytes   []byte
		post    func(*env) *answer
	}{
		"multipart": {"m", gz, func(e *env) *answer {
			return e.post(&e.a, []part{meta("m"), {name: "scan", file: "x.nii.gz", body: gz}})
		}},
		"multipart without file names": {"m2", plain, func(e *env) *answer { return e.post(&e.a, []part{meta("m2"), {name: "scan", body: plain}}) }},
		"pair, header first": {"p1", img, func(e *env) *answer {
			return e.post(&e.a, []part{meta("p1"), {name: "header", body: hdr}, {name: "scan", body: img}})
		}},
		"pair, header last": {"p2", img, func(e *env) *answer {
			return e.post(&e.a, []part{meta("p2"), {name: "scan", file: "x.IMG", body: img}, {name: "header", file: "x.HDR", body: hdr}})
		}},
		"single file named .img": {"p3", plain, func(e *env) *answer {
			return e.post(&e.a, []part{meta("p3"), {name: "scan", file: "x.img", body: plain}})
		}},
		"digests on the parts": {"d1", gz, func(e *env) *answer {
			m := meta("d1")
			m.digest = digestOf(m.body)
			return e.post(&e.a, []part{m, {name: "scan", body: gz, digest: digestOf(gz)}})
		}},
		"digest of the scan on the request": {"d2", gz, func(e *env) *answer {
			return e.post(&e.a, []part{meta("d2"), {name: "scan", body: gz}}, header("Content-Digest", digestOf(gz)))
		}},
		"digest of the whole body": {"d3", gz, func(e *env) *answer {
			ct, body := multipartBody(meta("d3"), part{name: "scan", body: gz})
			return e.do("POST", "/v1/scans", e.a.keys[uploader], withBody(ct, body), header("Content-Digest", digestOf(body)))
		}},
		"raw": {"raw", gz, func(e *env) *answer {
			return e.do("POST", "/v1/scans"+query, e.a.keys[uploader], withBody("application/octet-stream", gz), header("Content-Digest", digestOf(gz)))
		}},
		"raw as curl sends it": {"raw", plain, func(e *env) *answer {
			return e.do("POST", "/v1/scans"+query, e.a.keys[uploader], withBody("application/x-www-form-urlencoded", plain))
		}},
		"raw gzip, chunked": {"raw", image(t, 9), func(e *env) *answer {
			return e.do("POST", "/v1/scans"+query, e.a.keys[uploader], withBody("application/gzip", image(t, 9)), func(r *http.Request) { r.ContentLength = -1 })
		}},
		"birth date": {"bd", gz, func(e *env) *answer {
			return e.post(&e.a, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": "bd", "age_years": nil, "birth_date": "1950-01-15", "scan_date": "2024-06-01"})},
				{name: "scan", body: gz}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			a := tt.post(e)
			a.want(202, "")
			var got Scan
			a.json(&got)
			if got.State != neuroscreen.Received || got.SubjectID != tt.subject || got.Metadata.SubjectID != tt.subject || got.Bytes != int64(len(tt.bytes)) {
				t.Errorf("scan: %+v", got)
			}
			if want := fmt.Sprintf("%x", sha256.Sum256(tt.bytes)); got.Sha256 != want {
				t.Errorf("sha256 %s, want %s", got.Sha256, want)
			}
			if a.header.Get("Location") != "/v1/scans/"+got.ID.String() {
				t.Errorf("Location %q", a.header.Get("Location"))
			}
			if got.Metadata.BirthDate != "" || got.Metadata.AgeYears == nil {
				t.Errorf("the birth date was kept, or no age: %+v", got.Metadata)
			}
			if tt.subject == "bd" && *got.Metadata.AgeYears != 74.4 {
				t.Errorf("age %v", *got.Metadata.AgeYears)
			}
			if tt.subject == "raw" && (got.Metadata.AccessionNumber != "A 1" || *got.Metadata.AgeYears != 71.5 || len(got.Metadata.SOPInstanceUIDs) != 2 || *got.Metadata.ContrastAgent) {
				t.Errorf("query: %+v", got.Metadata)
			}
			again := e.do("GET", a.header.Get("Location"), e.a.keys[uploader])
			again.want(200, "")
		})
	}
}

// TestUploadRefused: the right status and type, the fault named, and nothing
// kept.
func TestUploadRefused(t *testing.T) {
	e := setup(t, func(c *Config) { c.Limits.MaxUpload = 64 << 10; c.Limits.Image = nifti.Limits{MaxBytes: 1 << 20} })
	gz := image(t, 1)
	plain := gunzip(t, gz)
	edit := func(at int, b ...byte) []byte {
		c := bytes.Clone(plain)
		copy(c[at:], b)
		return c
	}
	badCRC := bytes.Clone(gz)
	badCRC[len(badCRC)-6] ^= 1
	bomb := func() []byte { // announces 1 GiB in a few hundred bytes
		b := edit(42, 0, 4, 0, 4, 0, 2)
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		z.Write(b)
		z.Close()
		return buf.Bytes()
	}()
	good := part{name: "metadata", body: metadata(nil)}
	scan := part{name: "scan", file: "x.nii.gz", body: gz}
	meta := func(changes map[string]any) []part { return []part{{name: "metadata", body: metadata(changes)}, scan} }
	file := func(b []byte) []part { return []part{good, {name: "scan", body: b}} }
	type post func(*env) *answer
	raw := func(query string, ct string, b []byte) post {
		return func(e *env) *answer {
			return e.do("POST", "/v1/scans?"+query, e.a.keys[uploader], withBody(ct, b))
		}
	}
	const rawQuery = "subject_id=S&age_years=71&sex=F&modality=T1w"
	parts := func(p []part, edit ...func(*http.Request)) post {
		return func(e *env) *answer { return e.post(&e.a, p, edit...) }
	}

	tests := map[string]struct {
		post   post
		status int
		typ    string
		field  string
	}{
		"empty file":              {parts(file(nil)), 422, "empty", "scan"},
		"not an image":            {parts(file([]byte("hello, this is a text"))), 422, "not-nifti", "magic"},
		"wrong magic":             {parts(file(edit(344, 'x', 'y', 'z', 0))), 422, "bad-header", "magic"},
		"wrong magic and size":    {parts(file(append([]byte{1, 2, 3, 4}, edit(344, 'x')[4:]...))), 422, "not-nifti", "magic"},
		"gzip that is not":        {parts(file([]byte("\x1f\x8bnot gzip at all"))), 422, "bad-gzip", "scan"},
		"cut gzip":                {parts(file(gz[:len(gz)-20])), 422, "truncated", "dim"},
		"wrong checksum":          {parts(file(badCRC)), 422, "bad-gzip", "scan"},
		"cut plain file":          {parts(file(plain[:len(plain)-1])), 422, "truncated", "dim"},
		"header only":             {parts(file(plain[:348])), 422, "no-data", "vox_offset"},
		"inside the header":       {parts(file(plain[:200])), 422, "truncated", "sizeof_hdr"},
		"absurd dimensions":       {parts(file(edit(42, 0xff, 0xff))), 422, "absurd-dimensions", "dim[1]"},
		"complex voxels":          {parts(file(edit(70, 32, 0))), 422, "unsupported-datatype", "datatype"},
		"announces too much":      {parts(file(bomb)), 413, "too-large", "dim"},
		"over the size limit":     {parts(file(append(bytes.Clone(plain), make([]byte, 65<<10)...))), 413, "body-too-large", ""},
		"far over the size limit": {parts(file(append(bytes.Clone(plain), make([]byte, 9<<20)...))), 413, "body-too-large", ""},
		"img without hdr":         {parts([]part{good, {name: "scan", file: "x.img", body: plain[352:]}}), 422, "no-header", "header"},
		"pair cut":                {parts([]part{good, {name: "header", body: edit(344, 'n', 'i', '1', 0)[:348]}, {name: "scan", body: plain[360:]}}), 422, "truncated", "dim"},
		"pair cut, header last":   {parts([]part{good, {name: "scan", file: "x.img", body: plain[700:]}, {name: "header", body: edit(344, 'n', 'i', '1', 0)[:348]}}), 422, "truncated", "dim"},

		"no metadata":             {parts([]part{scan}), 400, "metadata-not-first", "metadata"},
		"metadata after the file": {parts([]part{scan, good}), 400, "metadata-not-first", "metadata"},
		"header before metadata":  {parts([]part{{name: "header", body: plain[:348]}, good, scan}), 400, "metadata-not-first", "metadata"},
		"no scan":                 {parts([]part{good}), 400, "missing-field", "scan"},
		"no parts":                {parts(nil), 400, "missing-field", "metadata"},
		"scan twice":              {parts([]part{good, scan, scan}), 400, "duplicate-part", "scan"},
		"metadata twice":          {parts([]part{good, good, scan}), 400, "duplicate-part", "metadata"},
		"a part of another name":  {parts([]part{good, {name: "file", body: gz}}), 400, "unknown-part", "file"},
		"header after its file":   {parts([]part{good, scan, {name: "header", body: []byte("{}")}}), 400, "unknown-part", "header"},
		"empty header":            {parts([]part{good, {name: "header"}, scan}), 400, "missing-field", "header"},
		"another part after all":  {parts([]part{good, scan, {name: "note", body: []byte("x")}}), 400, "unknown-part", "note"},
		"metadata are not JSON":   {parts([]part{{name: "metadata", body: []byte("age=3")}, scan}), 400, "invalid-json", ""},
		"metadata are a list":     {parts([]part{{name: "metadata", body: []byte("[]")}, scan}), 400, "invalid-value", ""},
		"metadata with a tail":    {parts([]part{{name: "metadata", body: append(metadata(nil), "{}"...)}, scan}), 400, "invalid-json", ""},
		"metadata too long":       {parts([]part{{name: "metadata", body: append(metadata(nil), bytes.Repeat([]byte(" "), 2<<20)...)}, scan}), 413, "body-too-large", ""},

		"no age":               {parts(meta(map[string]any{"age_years": nil})), 400, "missing-field", "age_years"},
		"no sex":               {parts(meta(map[string]any{"sex": nil})), 400, "missing-field", "sex"},
		"no subject":           {parts(meta(map[string]any{"subject_id": nil})), 400, "missing-field", "subject_id"},
		"subject of spaces":    {parts(meta(map[string]any{"subject_id": "  "})), 400, "missing-field", "subject_id"},
		"no modality":          {parts(meta(map[string]any{"modality": nil})), 400, "missing-field", "modality"},
		"wrong modality":       {parts(meta(map[string]any{"modality": "T2w"})), 400, "invalid-value", "modality"},
		"wrong sex":            {parts(meta(map[string]any{"sex": "female"})), 400, "invalid-value", "sex"},
		"age is a text":        {parts(meta(map[string]any{"age_years": "71"})), 400, "invalid-value", "age_years"},
		"age below 0":          {parts(meta(map[string]any{"age_years": -1})), 400, "invalid-value", "age_years"},
		"age of 200":           {parts(meta(map[string]any{"age_years": 200})), 400, "invalid-value", "age_years"},
		"scan date unreadable": {parts(meta(map[string]any{"scan_date": "31.12.2023"})), 400, "invalid-date", "scan_date"},
		"scan date impossible": {parts(meta(map[string]any{"scan_date": "2023-02-31"})), 400, "invalid-date", "scan_date"},
		"scan date to come":    {parts(meta(map[string]any{"scan_date": "2199-01-01"})), 400, "invalid-date", "scan_date"},
		"birth after scan":     {parts(meta(map[string]any{"birth_date": "2020-01-02", "scan_date": "2020-01-01"})), 400, "invalid-date", "birth_date"},
		"misspelt field":       {parts(meta(map[string]any{"age_yaers": 71})), 400, "unknown-field", "age_yaers"},
		"null":                 {parts(meta(map[string]any{"scanner": json.RawMessage("null")})), 400, "invalid-value", "scanner"},
		"control character":    {parts(meta(map[string]any{"scanner": "a\x00b"})), 400, "invalid-value", "scanner"},
		"bad UID":              {parts(meta(map[string]any{"study_instance_uid": "1.2.x"})), 400, "invalid-value", "study_instance_uid"},

		"wrong digest":               {parts([]part{good, scan}, header("Content-Digest", digestOf([]byte("other")))), 400, "digest-mismatch", "Content-Digest"},
		"wrong digest on the part":   {parts([]part{good, {name: "scan", body: gz, digest: digestOf([]byte("other"))}}), 400, "digest-mismatch", "Content-Digest"},
		"wrong digest on a bad scan": {parts([]part{good, {name: "scan", body: gz[:len(gz)-20], digest: digestOf(gz)}}), 400, "digest-mismatch", "Content-Digest"},
		"wrong digest on an .img":    {parts([]part{good, {name: "scan", file: "x.img", body: gz, digest: digestOf(nil)}}), 400, "digest-mismatch", "Content-Digest"},
		"bad scan, right digest":     {parts([]part{good, {name: "scan", body: plain[:400], digest: digestOf(plain[:400])}}), 422, "truncated", "dim"},
		"wrong digest on metadata":   {parts([]part{{name: "metadata", body: metadata(nil), digest: digestOf([]byte("other"))}, scan}), 400, "digest-mismatch", "Content-Digest"},
		"unreadable digest":          {parts([]part{good, scan}, header("Content-Digest", "sha-256=abc")), 400, "invalid-digest", "Content-Digest"},
		"digest we can't verify":     {parts([]part{good, scan}, header("Content-Digest", "md5=:AAAA:")), 400, "invalid-digest", "Content-Digest"},
		"empty idempotency key":      {parts([]part{good, scan}, header("Idempotency-Key", "")), 400, "invalid-value", "Idempotency-Key"},
		"two idempotency keys":       {parts([]part{good, scan}, header("Idempotency-Key", "a"), header("Idempotency-Key", "b")), 400, "invalid-value", "Idempotency-Key"},
		"long idempotency key":       {parts([]part{good, scan}, header("Idempotency-Key", strings.Repeat("k", 201))), 400, "invalid-value", "Idempotency-Key"},
		"metadata in query and body": {func(e *env) *answer {
			ct, b := multipartBody(good, scan)
			return e.do("POST", "/v1/scans?sex=F", e.a.keys[uploader], withBody(ct, b))
		}, 400, "metadata-twice", ""},

		"raw: wrong digest": {func(e *env) *answer {
			return e.do("POST", "/v1/scans?"+rawQuery, e.a.keys[uploader], withBody("application/octet-stream", gz), header("Content-Digest", digestOf(nil)))
		}, 400, "digest-mismatch", "Content-Digest"},
		"raw: no age":            {raw("subject_id=S&sex=F&modality=T1w", "application/octet-stream", gz), 400, "missing-field", "age_years"},
		"raw: no subject":        {raw("age_years=71&sex=F&modality=T1w", "application/octet-stream", gz), 400, "missing-field", "subject_id"},
		"raw: wrong modality":    {raw("subject_id=S&age_years=71&sex=F&modality=dwi", "application/octet-stream", gz), 400, "invalid-value", "modality"},
		"raw: age is a word":     {raw("subject_id=S&age_years=old&sex=F&modality=T1w", "application/octet-stream", gz), 400, "invalid-value", "age_years"},
		"raw: misspelt":          {raw(rawQuery+"&sxe=F", "application/octet-stream", gz), 400, "unknown-parameter", "sxe"},
		"raw: sex twice":         {raw(rawQuery+"&sex=M", "application/octet-stream", gz), 400, "invalid-value", "sex"},
		"raw: broken query":      {raw(rawQuery+"&scanner=%zz", "application/octet-stream", gz), 400, "invalid-query", ""},
		"raw: empty":             {raw(rawQuery, "application/octet-stream", nil), 422, "empty", "scan"},
		"raw: over the limit":    {raw(rawQuery, "application/octet-stream", append(bytes.Clone(plain), make([]byte, 65<<10)...)), 413, "body-too-large", ""},
		"JSON instead of a scan": {raw(rawQuery, "application/json", []byte("{}")), 415, "unsupported-media-type", "Content-Type"},
		"text":                   {raw(rawQuery, "text/plain", gz), 415, "unsupported-media-type", "Content-Type"},
		"multipart/mixed":        {raw("", "multipart/mixed; boundary=x", gz), 415, "unsupported-media-type", "Content-Type"},
		"no boundary":            {raw("", "multipart/form-data", gz), 400, "invalid-multipart", "Content-Type"},
		"unreadable type":        {raw(rawQuery, "a/b/c; =", gz), 415, "unsupported-media-type", "Content-Type"},
		"no last boundary": {func(e *env) *answer {
			ct, b := multipartBody(good, scan)
			return e.do("POST", "/v1/scans", e.a.keys[uploader], withBody(ct, b[:len(b)-10]))
		}, 400, "incomplete-body", ""},
		"ends inside the scan": {func(e *env) *answer {
			ct, b := multipartBody(good, scan)
			return e.do("POST", "/v1/scans", e.a.keys[uploader], withBody(ct, b[:len(b)-300]))
		}, 400, "incomplete-body", ""},
		"no multipart in it": {raw("", "multipart/form-data; boundary=x", []byte("nothing of the kind")), 400, "invalid-multipart", ""},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		tt := tests[name]
		t.Run(name, func(t *testing.T) {
			e := e.in(t)
			a := tt.post(e)
			a.want(tt.status, tt.typ)
			if got := val(a.problem.Field); tt.field != "" && got != tt.field {
				t.Errorf("field %q, want %q (%s)", got, tt.field, val(a.problem.Detail))
			}
			e.wantNothingStored()
		})
	}
	// The service is as good as before.
	e.upload(&e.a, "after", 5)
}

// wantNothingStored: no blob, no unfinished file, no scan.
func (e *env) wantNothingStored() {
	e.Helper()
	err := filepath.WalkDir(e.blobDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			e.Errorf("left behind: %s", path)
			os.Remove(path)
		}
		return err
	})
	if err != nil {
		e.Error(err)
	}
	var cases CaseList
	e.do("GET", "/v1/cases", e.a.keys[admin]).json(&cases)
	if len(cases.Cases) != 0 {
		e.Errorf("%d scans were stored", len(cases.Cases))
	}
}

func TestSameBytesSameScan(t *testing.T) {
	e := setup(t)
	first := e.upload(&e.a, "one", 1)
	repeat := func(t *testing.T, changes map[string]any, seed int16, edit ...func(*http.Request)) *answer {
		e := e.in(t)
		m := map[string]any{"subject_id": "one"}
		maps.Copy(m, changes)
		return e.post(&e.a, []part{{name: "metadata", body: metadata(m)}, {name: "scan", body: image(t, seed)}}, edit...)
	}
	t.Run("again", func(t *testing.T) {
		a := repeat(t, nil, 1)
		a.want(200, "")
		var got Scan
		a.json(&got)
		if got.ID != first.ID || got.MetadataDiffers != nil || a.header.Get("Location") != "/v1/scans/"+first.ID.String() {
			t.Errorf("%+v", got)
		}
	})
	t.Run("again with other metadata", func(t *testing.T) {
		a := repeat(t, map[string]any{"age_years": 17, "scanner": "X"}, 1)
		a.want(200, "")
		var got Scan
		a.json(&got)
		if got.ID != first.ID || !slices.Equal(got.MetadataDiffers, []string{"age_years", "scanner"}) || *got.Metadata.AgeYears != 71 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("other bytes", func(t *testing.T) {
		var got Scan
		a := repeat(t, nil, 2)
		a.want(202, "")
		if a.json(&got); got.ID == first.ID {
			t.Error("another scan of the subject was taken for the first")
		}
	})
	t.Run("another subject", func(t *testing.T) {
		var got Scan
		a := repeat(t, map[string]any{"subject_id": "two"}, 1)
		a.want(202, "")
		if a.json(&got); got.ID == first.ID || got.SubjectID != "two" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("another site", func(t *testing.T) {
		e := e.in(t)
		if got := e.upload(&e.b, "one", 1); got.ID == first.ID {
			t.Error("two sites share a scan")
		}
	})
	t.Run("after erasing", func(t *testing.T) {
		e := e.in(t)
		gone := e.upload(&e.a, "three", 3)
		e.do("DELETE", "/v1/scans/"+gone.ID.String(), e.a.keys[admin]).want(204, "")
		e.do("GET", "/v1/scans/"+gone.ID.String(), e.a.keys[admin]).want(404, "scan-not-found")
		if got := e.upload(&e.a, "three", 3); got.ID == gone.ID {
			t.Error("an erased scan came back")
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	e := setup(t)
	post := func(s *site, subject string, seed int16, key string) *answer {
		return e.post(s, []part{{name: "metadata", body: metadata(map[string]any{"subject_id": subject})}, {name: "scan", body: image(t, seed)}}, header("Idempotency-Key", key))
	}
	var first, again Scan
	a := post(&e.a, "one", 1, `"k-1"`)
	a.want(202, "")
	a.json(&first)
	a = post(&e.a, "one", 1, `"k-1"`)
	a.want(200, "")
	if a.json(&again); again.ID != first.ID {
		t.Errorf("a repeated request made %s beside %s", again.ID, first.ID)
	}
	a = post(&e.a, "one", 2, `"k-1"`)
	a.want(422, "idempotency-key-reused")
	post(&e.a, "two", 1, `"k-1"`).want(422, "idempotency-key-reused")
	post(&e.b, "one", 1, `"k-1"`).want(202, "") // another site's keys are its own
	var cases CaseList
	e.do("GET", "/v1/cases", e.a.keys[admin]).json(&cases)
	if len(cases.Cases) != 1 {
		t.Errorf("%d scans", len(cases.Cases))
	}
	if n := e.countBlobs(); n != 1 {
		t.Errorf("%d blobs are stored, the refused ones should be gone", n)
	}
}

// TestNoFreeTextIsStored: names in every place of a file that takes text are
// in the answer's hash, but in no stored file.
func TestNoFreeTextIsStored(t *testing.T) {
	e := setup(t)
	const name = "JOHN DOE 19500101 "
	text := []byte(strings.Repeat(name, 100))
	single := gunzip(t, image(t, 1))
	fill := func(b []byte) []byte { // data_type, db_name, descrip, aux_file, intent_name, and fields that are for nothing here
		b = bytes.Clone(b)
		for _, f := range [][2]int{{4, 38}, {56, 70}, {148, 252}, {328, 344}} {
			copy(b[f[0]:f[1]], text)
		}
		return b
	}
	const room = 1600
	extended := slices.Concat(fill(single)[:348], []byte{1, 0, 0, 0}, text[:room], single[352:], text)
	copy(extended[108:], []byte{0, 0, 0xf4, 0x44}) // vox_offset 1952 = 352 + room, as float32
	gz := func(b []byte) []byte {
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		z.Name, z.Comment, z.Extra = name, name, []byte(name)
		z.Write(b)
		z.Close()
		buf.WriteString(name)
		return buf.Bytes()
	}
	hdr := append(fill(single)[:348], text...)
	copy(hdr[344:], "ni1\x00")
	copy(hdr[108:], []byte{0, 0, 0, 0})
	analyze := bytes.Clone(hdr)
	copy(analyze[253:344], text) // originator to smin
	copy(analyze[344:348], text)
	img := append(bytes.Clone(single[352:]), text...)

	for title, parts := range map[string][]part{
		"plain":                {{name: "scan", body: extended}},
		"gzipped":              {{name: "scan", body: gz(extended)}},
		"named .img":           {{name: "scan", file: "x.img", body: extended}},
		"pair, header first":   {{name: "header", body: hdr}, {name: "scan", body: img}},
		"pair, header last":    {{name: "scan", file: "x.img", body: img}, {name: "header", body: hdr}},
		"pair gzipped":         {{name: "header", body: gz(hdr)}, {name: "scan", body: gz(img)}},
		"ANALYZE":              {{name: "header", body: analyze}, {name: "scan", body: img}},
		"ANALYZE, header last": {{name: "scan", file: "x.img", body: img}, {name: "header", body: analyze}},
	} {
		t.Run(title, func(t *testing.T) {
			e := e.in(t)
			subject := strings.ReplaceAll(title, " ", "-")
			parts = append([]part{{name: "metadata", body: metadata(map[string]any{"subject_id": subject})}}, parts...)
			a := e.post(&e.a, parts)
			a.want(202, "")
			var got Scan
			a.json(&got)
			for _, p := range parts {
				if want := fmt.Sprintf("%x", sha256.Sum256(p.body)); p.name == "scan" && (got.Sha256 != want || got.Bytes != int64(len(p.body))) {
					t.Errorf("%s of %d bytes, want those received: %s of %d", got.Sha256, got.Bytes, want, len(p.body))
				}
			}
			again := e.post(&e.a, parts)
			again.want(200, "")
			stored := 0
			filepath.WalkDir(e.blobDir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				stored++
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if key := fmt.Sprintf("%x", sha256.Sum256(b)); filepath.Base(path) != key {
					t.Errorf("%s holds the bytes of %s", path, key)
				}
				all := bytes.Clone(b)
				if bytes.HasPrefix(b, []byte("\x1f\x8b")) {
					all = append(all, gunzip(t, b)...)
				}
				for _, word := range []string{"JOHN", "DOE", "1950"} {
					if bytes.Contains(all, []byte(word)) {
						t.Errorf("%q is in the stored %s", word, path)
					}
				}
				return nil
			})
			if stored == 0 {
				t.Error("nothing is stored")
			}
		})
	}
}

// A comment in the header makes another file, and so another scan, of which
// the same is stored.
func TestOtherFreeTextIsAnotherScan(t *testing.T) {
	e := setup(t)
	plain := gunzip(t, image(t, 1))
	hdr, img := bytes.Clone(plain[:348]), plain[352:]
	copy(hdr[344:], "ni1\x00")
	copy(hdr[108:], []byte{0, 0, 0, 0})
	commented := func(b []byte) []byte {
		b = bytes.Clone(b)
		copy(b[148:], "second look")
		return b
	}
	for _, parts := range [][]part{
		{{name: "scan", body: plain}},
		{{name: "scan", body: commented(plain)}},
		{{name: "header", body: hdr}, {name: "scan", body: img}},
		{{name: "header", body: commented(hdr)}, {name: "scan", body: img}},
	} {
		e.post(&e.a, append([]part{{name: "metadata", body: metadata(nil)}}, parts...)).want(202, "")
	}
	if n := e.countBlobs(); n != 3 { // the image, the .hdr and the .img
		t.Errorf("%d blobs", n)
	}
}

func (e *env) countBlobs() int {
	n := 0
	filepath.WalkDir(e.blobDir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	return n
}

func TestConcurrentPostsOfTheSameBytes(t *testing.T) {
	e := setup(t)
	const n = 12
	answers := make([]*answer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var edit []func(*http.Request)
			if i%2 == 0 {
				edit = append(edit, header("Idempotency-Key", "same"))
			}
			answers[i] = e.post(&e.a, []part{{name: "metadata", body: metadata(nil)}, {name: "scan", body: image(t, 1)}}, edit...)
		})
	}
	wg.Wait()
	accepted := 0
	ids := map[string]bool{}
	for _, a := range answers {
		var s Scan
		switch a.status {
		case 202:
			accepted++
		case 200:
		default:
			t.Errorf("%d %s", a.status, a.body)
			continue
		}
		a.json(&s)
		ids[s.ID.String()] = true
	}
	if accepted != 1 || len(ids) != 1 {
		t.Errorf("%d were new, %d different ids", accepted, len(ids))
	}
	if n := e.countBlobs(); n != 1 {
		t.Errorf("%d blobs", n)
	}
}
