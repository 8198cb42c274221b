package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/config"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/service"
)

// serve runs the service in this process until the test ends or stop is
// called; its analyses are real.
func serve(t *testing.T, storage config.Storage) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cfg := config.Server{Storage: storage, Role: "both", Listen: "127.0.0.1:0", MaxUpload: 1 << 20, MaxImage: 1 << 20,
		BodyIdle: 5 * time.Second, Workers: 1, StopAfter: 10 * time.Second}
	serving, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, cfg, service.Parts{Serving: func(a net.Addr) { serving <- a }})
	}()
	stopped := false
	stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	select {
	case a := <-serving:
		return "http://" + a.String(), stop
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
		return "", nil
	}
}

// small is a scan that the analysis refuses at once.
func small(t *testing.T, seed int16) []byte {
	t.Helper()
	data := make([]int16, 4*5*6)
	for n := range data {
		data[n] = int16(n) * seed
	}
	var buf bytes.Buffer
	g := nifti.Geometry{Shape: []int{4, 5, 6}, Affine: nifti.Affine{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}}
	if err := nifti.Write(&buf, g, data); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func submit(t *testing.T, api *client.API, subject string, seed int16) client.Scan {
	t.Helper()
	age := 71.0
	scan, _, err := api.Submit(t.Context(), client.Upload{Scan: bytes.NewReader(small(t, seed)), Name: "scan.nii.gz",
		Metadata: neuroscreen.Metadata{SubjectID: subject, AgeYears: &age, Sex: "F", Modality: "T1w"}})
	if err == nil {
		scan, err = api.Wait(t.Context(), scan.ID, nil)
	}
	if err != nil || scan.State != neuroscreen.Refused {
		t.Fatal(scan.State, err)
	}
	return scan
}

// TestKeepEraseRestore: a deployment is kept while it runs, a subject erased,
// the trail exported, and the archive put into an empty place.
func TestKeepEraseRestore(t *testing.T) {
	t.Parallel()
	database, data := pgtest.ConnString(t), t.TempDir()
	url, stop := serve(t, config.Storage{Data: data, DatabaseURL: config.Secret(database), Site: "default"})
	keyFile := filepath.Join(data, "admin.key")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	api, err := client.New(url, strings.TrimSpace(string(key)), &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	first, second := submit(t, api, "S-1", 1), submit(t, api, "S-2", 2)

	archive := filepath.Join(t.TempDir(), "archive")
	must := func(args ...string) ran {
		t.Helper()
		r := run(t, args...)
		if r.code != 0 {
			t.Fatalf("%v: exit %d: %s%s", args, r.code, r.stdout, r.stderr)
		}
		return r
	}
	fails := func(says string, args ...string) ran {
		t.Helper()
		r := run(t, args...)
		if r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Fatalf("%v: exit %d, standard error %q, want %q", args, r.code, r.stderr, says)
		}
		return r
	}
	place := []string{"--data", data, "--database-url", database}
	if r := must(append([]string{"backup", archive}, place...)...); !strings.Contains(r.stderr, "2 scans") {
		t.Errorf("says %q", r.stderr)
	}
	if info, err := os.Stat(archive); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive: %v %v", info, err)
	}
	if left, _ := filepath.Glob(archive + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	fails("is there already", append([]string{"backup", archive}, place...)...)
	fails("holds no private database", "backup", archive+"2", "--data", t.TempDir())
	must("restore", "--check", archive)

	service := []string{"--server", url, "--key-file", keyFile}
	if r := fails("nothing was erased", append([]string{"erase", "S-1"}, service...)...); !strings.Contains(r.stdout, first.ID.String()) {
		t.Errorf("does not say what it would erase: %q", r.stdout)
	}
	must(append([]string{"erase", "S-1", "--yes"}, service...)...)
	fails("no scan of such a subject", append([]string{"erase", "S-1", "--yes"}, service...)...)
	state := func(id string) string {
		t.Helper()
		parsed, err := parseID(id)
		if err != nil {
			t.Fatal(err)
		}
		res, err := api.GetScanWithResponse(t.Context(), parsed)
		if err != nil {
			t.Fatal(err)
		}
		if res.JSON200 == nil {
			return res.Status()
		}
		return string(res.JSON200.State)
	}
	if got := state(first.ID.String()); !strings.HasPrefix(got, "404") {
		t.Errorf("the erased scan is %s", got)
	}
	if got := state(second.ID.String()); got != "refused" {
		t.Errorf("the other subject's scan is %s", got)
	}
	files, err := filepath.Glob(filepath.Join(data, "blobs", "??", "??", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("%d files of one scan, %v", len(files), err)
	}

	r := must(append([]string{"audit", "--format", "csv"}, service...)...)
	rows, err := csv.NewReader(strings.NewReader(r.stdout)).ReadAll()
	if err != nil || !strings.Contains(r.stderr, "unbroken") {
		t.Fatalf("%v %s", err, r.stderr)
	}
	erased := 0
	for _, row := range rows {
		if row[3] == "scan.erase" && row[4] == "scan:"+first.ID.String() {
			erased++
		}
	}
	if erased != 1 || strings.Contains(r.stdout, "S-1") {
		t.Errorf("the trail: %d erasures\n%s", erased, r.stdout)
	}
	if r := must(append([]string{"audit", "--scan", second.ID.String()}, service...)...); strings.Contains(r.stdout, first.ID.String()) || !strings.Contains(r.stdout, "scan.refused") {
		t.Errorf("the trail of one scan:\n%s", r.stdout)
	}
	stop()

	fresh, freshData := pgtest.Empty(t), filepath.Join(t.TempDir(), "made for it")
	must("restore", archive, "--data", freshData, "--database-url", fresh)
	fails("holds a deployment already", "restore", archive, "--data", freshData, "--database-url", fresh)
	url, _ = serve(t, config.Storage{Data: freshData, DatabaseURL: config.Secret(fresh), Site: "default"})
	if api, err = client.New(url, strings.TrimSpace(string(key)), &http.Client{Transport: transport}); err != nil {
		t.Fatal(err)
	}
	if got := state(first.ID.String()); got != "refused" { // the archive is older than the erasure
		t.Errorf("the restored scan is %s", got)
	}
	again, known, err := api.Submit(t.Context(), client.Upload{Scan: bytes.NewReader(small(t, 2)), Name: "scan.nii.gz", Metadata: second.Metadata})
	if err != nil || !known || again.ID != second.ID {
		t.Errorf("posted again: known %v, %v", known, err)
	}
	if _, err := os.Stat(filepath.Join(freshData, "admin.key")); err == nil {
		t.Error("another admin key was made though the old one works")
	}
}

// TestArchiveThroughAPipe, without the secret.
func TestArchiveThroughAPipe(t *testing.T) {
	t.Parallel()
	database, data := pgtest.ConnString(t), t.TempDir()
	_, stop := serve(t, config.Storage{Data: data, DatabaseURL: config.Secret(database), Site: "default"})
	stop()
	r := run(t, "backup", "-", "--without-secret", "--data", data, "--database-url", database)
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	secret, err := os.ReadFile(filepath.Join(data, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.stdout, strings.TrimSpace(string(secret))) {
		t.Error("the archive holds the secret")
	}
	fresh := pgtest.Empty(t)
	for secret, says := range map[string]string{
		"":                                "made without the secret",
		strings.Repeat("00", 32):          "is not the one that the archive was made with",
		strings.TrimSpace(string(secret)): "",
	} {
		args := []string{"restore", "-", "--data", t.TempDir(), "--database-url", fresh}
		if secret != "" {
			args = append(args, "--secret", secret)
		}
		got := runWith(t, strings.NewReader(r.stdout), args...)
		if (got.code == 0) != (says == "") || !strings.Contains(got.stderr, says) {
			t.Errorf("exit %d, says %q, want %q", got.code, got.stderr, says)
		}
	}
}
