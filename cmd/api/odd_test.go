package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/pgtest"
	"neuroscreen/internal/testdata"
)

// TestOddFiles: whatever is posted ends as a problem of the client's, as
// refused, or as a result that a reader is asked to check; never as a fault of
// ours, and within the memory that an analysis may take.
func TestOddFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("analyses many files")
	}
	t.Parallel()
	var files []string
	for _, folder := range []string{"odd", "refuse"} {
		found, err := filepath.Glob(filepath.Join(testdata.Shared(t, "scans", folder), "*"))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", folder, len(found), err)
		}
		files = append(files, found...)
	}

	database, data := pgtest.ConnString(t), t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	server := startServer(t, database, "--data "+data+" --listen "+address)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	api := connect(t, ctx, "http://"+address, filepath.Join(data, "admin.key"))
	api.Pause = func(context.Context, time.Duration) error { return errors.New("it should answer at once") }

	ends := map[neuroscreen.State]int{}
	for n, path := range files {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		begun := time.Now()
		state, says, err := post(ctx, api, path, fmt.Sprint("odd-", n))
		cancel()
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
			continue
		}
		ends[state]++
		t.Logf("%-45s %5.1f s  %-8s %s", filepath.Base(path), time.Since(begun).Seconds(), state, says)
	}
	if ends[notTaken] == 0 || ends[neuroscreen.Refused] == 0 {
		t.Errorf("%v: the files are not those that were meant", ends)
	}
	peak, err := peakMemory(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, peak memory %d MiB", ends, peak>>20)
	if peak > 2<<30 {
		t.Errorf("the service took %d MiB", peak>>20)
	}
}

const notTaken neuroscreen.State = "4xx"

// post hands in a file, the header beside it too if it is an .img, and returns
// how that ended and what was said. Ends that must not be are errors.
func post(ctx context.Context, api *client.API, path, subject string) (state neuroscreen.State, says string, err error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	age := 60.0
	upload := client.Upload{Scan: bytes.NewReader(file), Name: path,
		Metadata: neuroscreen.Metadata{SubjectID: subject, AgeYears: &age, Sex: neuroscreen.Female, Modality: neuroscreen.T1w}}
	if header, image, err := nifti.Files(path); err == nil && header != "" && image == path {
		if upload.Header, err = os.ReadFile(header); err != nil {
			return "", "", err
		}
	}
	scan, _, err := api.Submit(ctx, upload)
	if p, ok := errors.AsType[*client.ProblemError](err); ok && p.Status >= 400 && p.Status < 500 {
		return notTaken, p.Name(), nil
	}
	if err != nil {
		return "", "", err
	}
	if scan, err = api.Wait(ctx, scan.ID, nil); err != nil {
		return "", "", err
	}
	var codes []string
	for _, r := range scan.Reasons {
		codes = append(codes, r.Code)
	}
	says = strings.Join(codes, " ")
	switch scan.State {
	case neuroscreen.Refused:
		if says == "" {
			return "", "", errors.New("refused without a reason")
		}
		return scan.State, says, nil
	case neuroscreen.Scored:
		res, err := api.GetResultWithResponse(ctx, scan.ID, nil)
		if err != nil {
			return "", "", err
		}
		if res.JSON200 == nil {
			return "", "", client.ProblemOf(res.HTTPResponse, res.Body)
		}
		if v := res.JSON200.QC.Verdict; v != neuroscreen.VerdictReview {
			return "", "", fmt.Errorf("scored with the verdict %s", v)
		}
		return scan.State, "review", nil
	}
	return "", "", fmt.Errorf("ended as %s: %s", scan.State, says)
}

// peakMemory of a process, in bytes: VmHWM of proc_pid_status(5).
func peakMemory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0, errors.New("no VmHWM")
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10, err
}
