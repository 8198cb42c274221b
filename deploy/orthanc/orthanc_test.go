// Package orthanc has no code of its own; its test starts Debian's Orthanc with
// the files that others deploy.
package orthanc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/config"
	"neuroscreen/internal/interop/dicom"
	"neuroscreen/internal/interop/interoptest"
	"neuroscreen/internal/jobs"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/report"
	"neuroscreen/internal/service"
	"neuroscreen/internal/store"
	"neuroscreen/internal/webhook"
)

// archive is a running Orthanc.
type archive struct {
	t        *testing.T
	url, log string
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs Orthanc with the deployed configuration, but for places, ports,
// users, the time to wait and changes.
func start(t *testing.T, server, keyFile string, changes map[string]any, environment ...string) *archive {
	t.Helper()
	const orthanc = "/usr/sbin/Orthanc" // not on everybody's path
	if _, err := os.Stat(orthanc); err != nil {
		t.Skip("Orthanc is not here; scripts/setup.sh orthanc installs it")
	}
	b, err := os.ReadFile("orthanc.json")
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := json.Unmarshal(b, &settings); err != nil {
		t.Fatal(err)
	}
	for _, plugin := range settings["Plugins"].([]any) {
		if _, err := os.Stat(plugin.(string)); err != nil {
			t.Skipf("%v; scripts/setup.sh orthanc installs it", err)
		}
	}
	script, err := filepath.Abs("neuroscreen.py")
	if err != nil {
		t.Fatal(err)
	}
	dir, port := t.TempDir(), freePort(t)
	for name, value := range map[string]any{
		"StorageDirectory": dir, "IndexDirectory": dir, "PythonScript": script, "HttpPort": port, "DicomServerEnabled": false,
		"AuthenticationEnabled": false, "StableAge": 1,
	} {
		if _, ok := settings[name]; !ok {
			t.Errorf("orthanc.json does not set %s", name)
		}
		settings[name] = value
	}
	maps.Copy(settings, changes)
	if b, err = json.Marshal(settings); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "orthanc.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port), log: log.Name()}
	cmd := exec.Command(orthanc, file)
	cmd.Env = append(os.Environ(), "NEUROSCREEN_SERVER="+server, "NEUROSCREEN_KEY_FILE="+keyFile, "NEUROSCREEN_RETRY_SECONDS=1", "PYTHONDONTWRITEBYTECODE=1")
	cmd.Env = append(cmd.Env, environment...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
		if t.Failed() {
			t.Logf("Orthanc says:\n%s", a.says())
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		res, err := http.Get(a.url + "/system")
		if err == nil {
			res.Body.Close()
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("Orthanc does not answer: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// says is what Orthanc has logged until now.
func (a *archive) says() string {
	a.t.Helper()
	b, err := os.ReadFile(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(b)
}

// hears waits until Orthanc has logged a text.
func (a *archive) hears(text string) {
	a.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(a.says(), text); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("Orthanc never says %q", text)
		}
	}
}

// modality has Orthanc find a modality at a port.
func (a *archive) modality(name string, port int) {
	a.t.Helper()
	a.do(http.MethodPut, "/modalities/"+name, fmt.Sprintf(`["NEUROSCREEN", "127.0.0.1", %d]`, port))
}

func (a *archive) do(method, path, body string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		a.t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

// store hands over a series and returns Orthanc's name of it.
func (a *archive) store(files [][]byte) string {
	a.t.Helper()
	series := ""
	for _, f := range files {
		res, err := http.Post(a.url+"/instances", "application/dicom", bytes.NewReader(f))
		if err != nil {
			a.t.Fatal(err)
		}
		var stored struct{ ParentSeries string }
		err = json.NewDecoder(res.Body).Decode(&stored)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			a.t.Fatalf("Orthanc does not take it: %s %v", res.Status, err)
		}
		series = stored.ParentSeries
	}
	return series
}

// stow hands over a series as a PACS does through DICOMweb (STOW-RS).
func (a *archive) stow(files [][]byte) string {
	a.t.Helper()
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	for _, f := range files {
		w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}})
		if err == nil {
			_, err = w.Write(f)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
	parts.Close()
	res, err := http.Post(a.url+"/dicom-web/studies", `multipart/related; type="application/dicom"; boundary=`+parts.Boundary(), &body)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		a.t.Fatalf("STOW-RS: %s %s", res.Status, answer)
	}
	var found []struct{ ID, Type string }
	res, err = http.Post(a.url+"/tools/lookup", "text/plain", strings.NewReader(seriesUID))
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&found); err != nil || len(found) != 1 || found[0].Type != "Series" {
		a.t.Fatalf("%+v %v", found, err)
	}
	return found[0].ID
}

// converted is a series as Orthanc's neuro plug-in makes an image of it.
func (a *archive) converted(series string) *nifti.Image {
	a.t.Helper()
	res, err := http.Get(a.url + "/series/" + series + "/nifti")
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	image, err := nifti.Decode(res.Body, nifti.Limits{})
	if err != nil {
		a.t.Fatalf("%s: %v", res.Status, err)
	}
	return image
}

// decision waits for what became of a series.
func (a *archive) decision(series string) string {
	a.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for {
		res, err := http.Get(a.url + "/series/" + series + "/metadata/NeuroScreen")
		if err != nil {
			a.t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return string(b)
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("nothing was decided on series %s", series)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// received is what the analysis was given.
type received struct {
	image    *nifti.Image
	metadata neuroscreen.Metadata
}

// TestSeriesArrivesByItself: a T1 that a scanner stores comes out of the
// service with orientation, sides and tags right, also when the service was
// away; what is no T1 stays.
func TestSeriesArrivesByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Orthanc")
	}
	head, err := nifti.ReadFile("../../testdata/heads/healthy_45M.nii.gz")
	if err != nil {
		t.Fatal(err)
	}
	head.Affine = tilt(head.Affine, 12)
	data := t.TempDir()
	keyFile := filepath.Join(data, "admin.key")
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	orthanc := start(t, "http://"+address, keyFile, nil)

	t1 := series(head, nil)
	waits := orthanc.stow(t1)

	small := &nifti.Image{Header: nifti.Header{Shape: []int{64, 12, 10}, Affine: tilt(nifti.Affine{{1, 0, 0, -30}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}, 0)}, Data: make([]float32, 64*12*10)}
	for n := range small.Data {
		small.Data[n] = float32(n % 4000)
	}
	others := map[string]string{}
	for _, c := range []struct {
		name, want string
		change     map[tag]string
		slices     int
	}{
		{"echo time of a T2", "left alone: echo time 90", map[tag]string{echoTime: "90", description: "SPACE SAG", sequence: ""}, 64},
		{"described as FLAIR", "left alone: described as another", map[tag]string{description: "3D T1 FLAIR SAG"}, 64},
		{"derived", "left alone: derived", map[tag]string{imageType: `DERIVED\SECONDARY\MPR`}, 64},
		{"a localizer", "left alone: ", map[tag]string{description: "Localizer"}, 64},
		{"few slices", "left alone: 20 slices", nil, 20},
		{"a knee", "left alone: body part KNEE", map[tag]string{bodyPart: "KNEE"}, 64},
		{"CT", "left alone: not an MR", map[tag]string{modality: "CT"}, 64},
		{"no sex", "posted: ", map[tag]string{patientID: "MRN 8", patientSex: "O"}, 64},
		{"no age", "posted: ", map[tag]string{patientID: "MRN 9", birthDate: "", patientAge: ""}, 64},
		{"damaged", "impossible: dcm2niix", map[tag]string{patientID: "MRN 10", pixelData: ""}, 64},
		{"nobody's", "posted: ", map[tag]string{patientID: "", patientSex: ""}, 64},
		{"contrast agent", "posted: ", map[tag]string{agent: "Gadobutrol"}, 64},
	} {
		others[c.name] = orthanc.store(series(small, c.change)[:c.slices]) + " " + c.want
	}
	deleted := orthanc.store(series(small, map[tag]string{patientID: "MRN 11"}))
	orthanc.hears(deleted + " waits")
	orthanc.do(http.MethodDelete, "/series/"+deleted, "")

	seen := make(chan received, 10)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	serving := make(chan net.Addr, 1)
	go func() {
		ended <- service.Run(ctx, config.Server{
			Storage: config.Storage{Data: data, DatabaseURL: config.Secret(pgtest.ConnString(t)), Site: "default"},
			Role:    "both", Listen: address, MaxUpload: 1 << 28, MaxImage: 1 << 28, BodyIdle: 30 * time.Second, Workers: 1, StopAfter: 10 * time.Second,
		}, service.Parts{Serving: func(a net.Addr) { serving <- a }, Analyse: func(ctx context.Context, in jobs.Input) (jobs.Output, error) {
			r, err := in.Image(ctx)
			if err != nil {
				return jobs.Output{}, err
			}
			defer r.Close()
			image, err := nifti.Decode(r, nifti.Limits{})
			if err != nil {
				return jobs.Output{}, err
			}
			seen <- received{image, in.Metadata}
			return jobs.Output{}, neuroscreen.Errorf(neuroscreen.CodeUnprocessable, "refused", "seen")
		}})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-serving:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}

	id, ok := strings.CutPrefix(orthanc.decision(waits), "posted: ")
	if !ok {
		t.Fatalf("the T1: %s", orthanc.decision(waits))
	}
	var whole, contrast *received
	for range 2 {
		select {
		case r := <-seen:
			if r.metadata.ContrastAgent != nil {
				contrast = &r
			} else {
				whole = &r
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("the analysis was given nothing")
		}
	}
	if whole == nil || contrast == nil || !*contrast.metadata.ContrastAgent {
		t.Fatalf("with contrast agent %v, without %v", contrast, whole)
	}
	same(t, whole.image, head)
	same(t, orthanc.converted(waits), head) // the neuro plug-in, with code of its own, agrees with dcm2niix
	m := whole.metadata
	if m.AgeYears == nil || math.Abs(*m.AgeYears-45.5) > 0.06 || m.Sex != neuroscreen.Male || m.FieldStrengthT == nil || *m.FieldStrengthT != 3 ||
		m.Manufacturer != "ACME" || m.Scanner != "Magnet 3" || m.ScanDate != "2024-07-01" || m.BirthDate != "" || m.SubjectID == "MRN 7" {
		t.Errorf("the analysis is told %+v", m)
	}

	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New("http://"+address, strings.TrimSpace(string(key)), nil)
	if err != nil {
		t.Fatal(err)
	}
	subject := "MRN 7"
	found, err := api.FindScansWithResponse(t.Context(), &client.FindScansParams{SubjectID: &subject})
	if err != nil || found.JSON200 == nil {
		t.Fatalf("%v %s", err, found.Body)
	}
	posted := slices.IndexFunc(found.JSON200.Scans, func(s client.Scan) bool { return s.ID.String() == id })
	if posted < 0 {
		t.Fatalf("scan %s is not among those of its subject", id)
	}
	// What leads back to the series is there for the site.
	if m := found.JSON200.Scans[posted].Metadata; m.AccessionNumber != "ACC-9" || m.SeriesInstanceUID != seriesUID || m.StudyInstanceUID != studyUID ||
		m.FrameOfReferenceUID != frameUID || len(m.SOPInstanceUIDs) != head.Shape[0] || m.SOPInstanceUIDs[1] != seriesUID+".2" {
		t.Errorf("references %+v", m)
	}

	orthanc.takesResults(found.JSON200.Scans[posted].Metadata, whole.image, t1)

	for name, what := range others {
		series, want, _ := strings.Cut(what, " ")
		if got := orthanc.decision(series); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// What lacks age or sex stands in the worklist, for somebody to see while
	// the patient may still be there.
	refusals := map[string]string{"MRN 8": "missing-sex", "MRN 9": "missing-age", studyUID: "missing-sex", "MRN 10": "no-image"}
	group := client.ListCasesParamsGroupEnded
	list, err := api.ListCasesWithResponse(t.Context(), &client.ListCasesParams{Group: &group})
	if err != nil || list.JSON200 == nil {
		t.Fatalf("%v %s", err, list.Body)
	}
	for _, c := range list.JSON200.Cases {
		if code := refusals[c.SubjectID]; code != "" {
			if c.State != neuroscreen.Refused || c.Reasons[0].Code != code || c.Why == "" {
				t.Errorf("%s: %+v", c.SubjectID, c)
			}
			delete(refusals, c.SubjectID)
		}
	}
	if len(refusals) > 0 {
		t.Errorf("not in the worklist: %v", refusals)
	}
	if d := orthanc.decision(strings.Fields(others["no sex"])[0]); !strings.Contains(d, "refused: The sex") {
		t.Errorf("Orthanc says of the series without sex: %q", d)
	}

	gone := deleted + " was deleted meanwhile"
	orthanc.hears(gone)
	if _, after, _ := strings.Cut(orthanc.says(), gone); strings.Contains(after, deleted) {
		t.Error("what was deleted is tried again")
	}

	// Stored again, and so stable again: the service knows it.
	var scans int
	orthanc.store(t1)
	time.Sleep(3 * time.Second)
	found, err = api.FindScansWithResponse(t.Context(), &client.FindScansParams{SubjectID: &subject})
	if err != nil || found.JSON200 == nil {
		t.Fatal(err)
	}
	if scans = len(found.JSON200.Scans); scans != 2 {
		t.Errorf("%d scans of two series", scans)
	}
}

// TestResultsComeBack: what a reader lets stand is stored in the study of the
// scan and sent on, what is withdrawn is deleted, and a PACS told to hide it;
// who is not the service is not heard.
func TestResultsComeBack(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Orthanc")
	}
	scan, other := uuid.New(), uuid.New()
	p := interoptest.Page()
	p.Result.ScanID = scan.String()
	accept := &report.Review{Decision: "accept", By: "Dr. A", At: p.Created}
	var decision atomic.Pointer[report.Review]
	decision.Store(accept)
	page := func() report.Page {
		p := p
		p.Review = decision.Load()
		return p
	}
	var away, withdrawn atomic.Bool
	api := http.NewServeMux()
	serve := func(name string, write func(w io.Writer) error) {
		api.HandleFunc("GET /v1/scans/{id}/"+name, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Header.Get("Authorization") != "Bearer reader":
				http.Error(w, "{}", http.StatusUnauthorized)
			case away.Load():
				http.Error(w, "{}", http.StatusServiceUnavailable)
			case r.PathValue("id") != scan.String() || withdrawn.Load():
				http.Error(w, `{"detail":"this result is not for a PACS"}`, http.StatusConflict)
			default:
				if err := write(w); err != nil {
					t.Error(err)
				}
			}
		})
	}
	api.HandleFunc("GET /v1/cases/{id}", func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(w, "{}", http.StatusServiceUnavailable)
			return
		}
		c := client.Case{ID: scan, State: neuroscreen.Scored}
		if r := decision.Load(); r != nil {
			c.Decision = &client.CaseDecision{Decision: client.Decision(r.Decision), By: r.By, At: r.At}
		}
		if err := json.NewEncoder(w).Encode(c); err != nil {
			t.Error(err)
		}
	})
	serve("sr.dcm", func(w io.Writer) error { return dicom.Report(w, page()) })
	serve("seg.dcm", func(w io.Writer) error {
		return dicom.Segmentation(w, page(), func() (*nifti.Image, error) {
			return &nifti.Image{Header: nifti.Header{Shape: []int{2, 1, 1}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}, Data: []float32{17, 53}}, nil
		})
	})
	service := httptest.NewServer(api)
	defer service.Close()

	dir, secret, at := t.TempDir(), webhook.NewSecret(), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	port := freePort(t)
	pacs := start(t, service.URL, file("none", "none"), map[string]any{"DicomServerEnabled": true, "DicomPort": port})
	orthanc := start(t, service.URL, file("uploader", "uploader"), nil, "NEUROSCREEN_SEND_TO=pacs", "NEUROSCREEN_REJECT_AT=pacs", "NEUROSCREEN_WEBHOOK_SECRET_FILE="+file("secret", secret),
		"NEUROSCREEN_WEBHOOK_LISTEN="+at, "NEUROSCREEN_RESULTS_KEY_FILE="+file("reader", "reader"))
	orthanc.modality("pacs", port)
	sender := webhook.Sender{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	send := func(secret string, id uuid.UUID, kind string) int {
		t.Helper()
		body, err := json.Marshal(store.Notice{Type: kind, At: time.Now(), Data: store.NoticeData{ScanID: id, ResultVersion: 1}})
		if err != nil {
			t.Fatal(err)
		}
		var status int
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			status, err = sender.Send(t.Context(), "http://"+at+"/", secret, uuid.NewString(), body)
			if status != 0 {
				return status
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	kept := func(want int) {
		t.Helper()
		if got := len(orthanc.list("/series")); got != want {
			t.Errorf("Orthanc has %d series, want %d", got, want)
		}
	}
	steps := []struct {
		what   string
		secret string
		id     uuid.UUID
		kind   string
		away   bool
		answer int
		kept   int
	}{
		{"a stranger", webhook.NewSecret(), scan, store.NoticeAccepted, false, 401, 0},
		{"the service is away", secret, scan, store.NoticeAccepted, true, 503, 0},
		{"accepted", secret, scan, store.NoticeAccepted, false, 204, 2},
		{"accepted, told twice", secret, scan, store.NoticeAccepted, false, 204, 2},
		{"of no study", secret, other, store.NoticeAccepted, false, 204, 2},
		{"another one withdrawn", secret, other, store.NoticeWithdrawn, false, 204, 2},
		{"an older version withdrawn, told late", secret, scan, store.NoticeWithdrawn, false, 204, 2},
	}
	noted := func(want ...[]string) {
		t.Helper()
		var got [][]string
		for _, id := range pacs.list("/instances") {
			if uids := pacs.note(id); uids != nil {
				got = append(got, uids)
			}
		}
		byFirst := func(a, b []string) int { return strings.Compare(a[0], b[0]) }
		slices.SortFunc(got, byFirst)
		slices.SortFunc(want, byFirst)
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("the PACS is told to hide %v, want %v", got, want)
		}
	}
	for _, s := range steps {
		away.Store(s.away)
		if got := send(s.secret, s.id, s.kind); got != s.answer {
			t.Errorf("%s: answered %d, want %d", s.what, got, s.answer)
		}
		kept(s.kept)
	}
	// Amended with a comment it stands, its report replaced by one with the
	// comment; messages from before change nothing.
	noted()
	accepted, firstUIDs := orthanc.list("/instances"), orthanc.uids()
	slices.Sort(accepted)
	decision.Store(&report.Review{Decision: "amend", Comment: "old infarct on the left", By: "Dr. A", At: p.Created.Add(time.Hour)})
	var amended []string
	for _, kind := range []string{store.NoticeAccepted, store.NoticeAccepted, store.NoticeWithdrawn} {
		if got := send(secret, scan, kind); got != 204 {
			t.Errorf("amended: answered %d", got)
		}
		kept(2)
		now := orthanc.list("/instances")
		slices.Sort(now)
		if amended == nil {
			amended = now
		}
		if !slices.Equal(now, amended) || slices.Equal(now, accepted) || len(now) != 2 {
			t.Errorf("accepted %v, amended %v, then %v", accepted, amended, now)
		}
		if !slices.ContainsFunc(now, func(id string) bool {
			return strings.Contains(orthanc.get("/instances/"+id+"/file"), "old infarct on the left")
		}) {
			t.Error("the report lacks the comment")
		}
		noted(firstUIDs)
	}
	secondUIDs := orthanc.uids()
	decision.Store(nil) // a newer version, which nobody accepted yet
	orthanc.modality("pacs", freePort(t))
	if got := send(secret, scan, store.NoticeWithdrawn); got != 503 {
		t.Errorf("replaced, while the PACS is away: answered %d", got)
	}
	kept(1) // the note
	orthanc.modality("pacs", port)
	if got := send(secret, scan, store.NoticeWithdrawn); got != 204 {
		t.Errorf("replaced: answered %d", got)
	}
	kept(0)
	noted(firstUIDs, secondUIDs)
	decision.Store(accept)
	withdrawn.Store(true)
	if got := send(secret, scan, store.NoticeAccepted); got != 204 {
		t.Errorf("a message that came too late: answered %d", got)
	}
	kept(0)
}

// uids are those of all instances, in order.
func (a *archive) uids() (out []string) {
	a.t.Helper()
	for _, id := range a.list("/instances") {
		out = append(out, strings.TrimRight(a.get("/instances/"+id+"/content/0008,0018"), "\x00"))
	}
	slices.Sort(out)
	return out
}

// note is what a rejection note names, nil for another instance.
func (a *archive) note(instance string) (uids []string) {
	a.t.Helper()
	type reference struct{ ReferencedSOPInstanceUID string }
	type evidence struct {
		StudyInstanceUID         string
		ReferencedSeriesSequence []struct {
			SeriesInstanceUID     string
			ReferencedSOPSequence []reference
		}
	}
	var d struct {
		Modality, StudyInstanceUID, SOPClassUID   string
		ConceptNameCodeSequence                   []struct{ CodeValue string }
		CurrentRequestedProcedureEvidenceSequence []evidence
		ContentSequence                           []struct {
			ValueType             string
			ReferencedSOPSequence []reference
		}
	}
	if err := json.Unmarshal([]byte(a.get("/instances/"+instance+"/simplified-tags")), &d); err != nil {
		a.t.Fatal(err)
	}
	if d.Modality != "KO" {
		return nil
	}
	for _, c := range d.ContentSequence {
		uids = append(uids, c.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
	}
	slices.Sort(uids)
	var named []string
	for _, s := range d.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence {
		for _, r := range s.ReferencedSOPSequence {
			named = append(named, r.ReferencedSOPInstanceUID)
		}
	}
	slices.Sort(named)
	if d.ConceptNameCodeSequence[0].CodeValue != "113037" || d.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID != d.StudyInstanceUID || !slices.Equal(named, uids) {
		a.t.Errorf("the note is %+v", d)
	}
	file := filepath.Join(a.t.TempDir(), "note.dcm")
	if err := os.WriteFile(file, []byte(a.get("/instances/"+instance+"/file")), 0o600); err != nil {
		a.t.Fatal(err)
	}
	for _, judge := range []string{"dciodvfy", "dsrdump"} { // Debian: dicom3tools, dcmtk
		if _, err := exec.LookPath(judge); err != nil {
			continue
		}
		if b, err := exec.Command(judge, file).CombinedOutput(); err != nil || bytes.Contains(b, []byte("Error")) {
			a.t.Errorf("%s: %v\n%s", judge, err, b)
		}
	}
	return uids
}

// list asks Orthanc for names.
func (a *archive) list(path string) (names []string) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.get(path)), &names); err != nil {
		a.t.Fatal(err)
	}
	return names
}

func (a *archive) get(path string) string {
	a.t.Helper()
	res, err := http.Get(a.url + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(b)
}

// takesResults stores what the service writes of a result beside the scan, and
// compares where both lie: frames of the segmentation are slices of the scan, in
// its orientation, though the scan went through a converter.
func (a *archive) takesResults(m neuroscreen.Metadata, image *nifti.Image, slices [][]byte) {
	a.t.Helper()
	p := interoptest.Page()
	p.Metadata = m
	labels := &nifti.Image{Header: image.Header, Data: make([]float32, len(image.Data))}
	for i := range labels.Data {
		labels.Data[i] = 17 // hippocampi, both on every slice
		if i%3 == 0 {
			labels.Data[i] = 53
		}
	}
	var seg, sr bytes.Buffer
	if err := dicom.Segmentation(&seg, p, func() (*nifti.Image, error) { return labels, nil }); err != nil {
		a.t.Fatal(err)
	}
	if err := dicom.Report(&sr, p); err != nil {
		a.t.Fatal(err)
	}
	type tags struct {
		StudyInstanceUID, Modality, ImageOrientationPatient, ImagePositionPatient string

		SharedFunctionalGroupsSequence   []struct{ PlaneOrientationSequence []tags }
		PerFrameFunctionalGroupsSequence []struct{ PlanePositionSequence []tags }
	}
	stored := func(file []byte) (of tags) {
		var answer struct{ ID string }
		res, err := http.Post(a.url+"/instances", "application/dicom", bytes.NewReader(file))
		if err == nil {
			err = json.NewDecoder(res.Body).Decode(&answer)
			res.Body.Close()
		}
		if err == nil {
			res, err = http.Get(a.url + "/instances/" + answer.ID + "/simplified-tags")
		}
		if err != nil {
			a.t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&of); err != nil {
			a.t.Fatalf("%s: %v", res.Status, err)
		}
		return of
	}
	got := stored(seg.Bytes())
	if report := stored(sr.Bytes()); report.Modality != "SR" || got.Modality != "SEG" || report.StudyInstanceUID != studyUID || got.StudyInstanceUID != studyUID {
		a.t.Errorf("the archive has %s of study %s and %s of study %s", report.Modality, report.StudyInstanceUID, got.Modality, got.StudyInstanceUID)
	}
	var scan []tags
	for _, s := range slices {
		scan = append(scan, stored(s))
	}
	if len(got.PerFrameFunctionalGroupsSequence) != 2*len(scan) {
		a.t.Errorf("%d frames for %d slices", len(got.PerFrameFunctionalGroupsSequence), len(scan))
	}
	near := func(x, y string) bool {
		p, q := strings.Split(x, `\`), strings.Split(y, `\`)
		for i := range p {
			v, _ := strconv.ParseFloat(p[i], 64)
			w, err := strconv.ParseFloat(q[i], 64)
			if err != nil || math.Abs(v-w) > 1e-3 {
				return false
			}
		}
		return len(p) == len(q)
	}
	if o := got.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient; !near(o, scan[0].ImageOrientationPatient) {
		a.t.Errorf("the segmentation lies along %s, the scan along %s", o, scan[0].ImageOrientationPatient)
	}
	for _, f := range got.PerFrameFunctionalGroupsSequence {
		at := f.PlanePositionSequence[0].ImagePositionPatient
		found := false
		for _, s := range scan {
			found = found || near(at, s.ImagePositionPatient)
		}
		if !found {
			a.t.Fatalf("no slice of the scan begins at %s, as a frame does", at)
		}
	}
}

// same holds each voxel of want against the one of got at the same place in
// the patient.
func same(t *testing.T, got, want *nifti.Image) {
	t.Helper()
	back := inverse(got.Affine)
	s := want.Shape
	checked := 0
	for k := 3; k < s[2]; k += 7 {
		for j := 2; j < s[1]; j += 7 {
			for i := 1; i < s[0]; i += 5 {
				v := want.Data[i+s[0]*(j+s[1]*k)]
				p := apply(back, apply(want.Affine, [3]float64{float64(i), float64(j), float64(k)}))
				var at [3]int
				for n := range at {
					at[n] = int(math.Round(p[n]))
					if math.Abs(p[n]-float64(at[n])) > 0.05 || at[n] < 0 || at[n] >= got.Shape[n] {
						t.Fatalf("voxel %d %d %d lies at %v of the received image of %v", i, j, k, p, got.Shape)
					}
				}
				g := got.Data[at[0]+got.Shape[0]*(at[1]+got.Shape[1]*at[2])]
				if math.Abs(float64(g)-math.Round(float64(v))) > 0.5 {
					t.Fatalf("voxel %d %d %d is %v, was %v: the image was turned or mirrored", i, j, k, g, v)
				}
				if v > 0 {
					checked++
				}
			}
		}
	}
	if checked < 1000 {
		t.Errorf("only %d voxels compared", checked)
	}
}

// tilt turns an affine about the patient's long axis and then the left-right
// one, by degrees.
func tilt(a nifti.Affine, degrees float64) nifti.Affine {
	s, c := math.Sincos(degrees * math.Pi / 180)
	rz := nifti.Affine{{c, -s, 0, 3}, {s, c, 0, -5}, {0, 0, 1, 7}, {0, 0, 0, 1}}
	rx := nifti.Affine{{1, 0, 0, 0}, {0, c, -s, 0}, {0, s, c, 0}, {0, 0, 0, 1}}
	return multiply(rx, multiply(rz, a))
}

func multiply(a, b nifti.Affine) (m nifti.Affine) {
	for i := range 4 {
		for j := range 4 {
			for k := range 4 {
				m[i][j] += a[i][k] * b[k][j]
			}
		}
	}
	return m
}

func apply(a nifti.Affine, v [3]float64) (w [3]float64) {
	for i := range w {
		w[i] = a[i][0]*v[0] + a[i][1]*v[1] + a[i][2]*v[2] + a[i][3]
	}
	return w
}

// inverse by the adjugate of the 3x3 part.
func inverse(a nifti.Affine) (m nifti.Affine) {
	cof := func(i, j int) float64 {
		r, c := [2]int{(i + 1) % 3, (i + 2) % 3}, [2]int{(j + 1) % 3, (j + 2) % 3}
		return a[r[0]][c[0]]*a[r[1]][c[1]] - a[r[0]][c[1]]*a[r[1]][c[0]]
	}
	det := a[0][0]*cof(0, 0) + a[0][1]*cof(0, 1) + a[0][2]*cof(0, 2)
	for i := range 3 {
		for j := range 3 {
			m[i][j] = cof(j, i) / det
		}
	}
	t := apply(m, [3]float64{a[0][3], a[1][3], a[2][3]})
	m[0][3], m[1][3], m[2][3], m[3][3] = -t[0], -t[1], -t[2], 1
	return m
}
