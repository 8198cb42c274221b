package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"neuroscreen/internal/client"
)

// held is what the service holds between two scans: it must not grow with the
// number of scans.
type held struct {
	Name       string  `json:"name"`
	Scans      int     `json:"scans"` // so far
	Seconds    float64 `json:"seconds_per_scan"`
	ResidentMB float64 `json:"resident_mb"`
	PeakMB     float64 `json:"peak_mb"`
	Goroutines int     `json:"goroutines"`
	Files      int     `json:"open_files"`
}

// endurance posts one scan after the other, each of another person, and prints
// ten times what the service holds.
func endurance(bin, scan string, count int) (err error) {
	ctx := context.Background()
	api, pid, stop, err := serve(ctx, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	f, err := os.Open(scan)
	if err != nil {
		return err
	}
	defer f.Close()
	begun, last := time.Now(), 0
	for i := 1; i <= count; i++ {
		if err := scored(ctx, api, f, fmt.Sprintf("endurance-%d", i), func(string, time.Time) {}); err != nil {
			return err
		}
		if i == 1 || i*10/count > last*10/count {
			h := held{Name: "endurance", Scans: i, Seconds: time.Since(begun).Seconds() / float64(i-last), PeakMB: peakMB(pid)}
			if err := h.read(ctx, api); err != nil {
				return err
			}
			if err := json.NewEncoder(os.Stdout).Encode(h); err != nil {
				return err
			}
			begun, last = time.Now(), i
		}
	}
	return nil
}

// read takes from the service's own metrics what it holds.
func (h *held) read(ctx context.Context, api *client.API) error {
	res, err := api.GetMetricsWithResponse(ctx)
	if err != nil {
		return err
	}
	if res.StatusCode() != 200 {
		return fmt.Errorf("metrics: %s", res.Status())
	}
	values := map[string]float64{}
	rows := bufio.NewScanner(strings.NewReader(string(res.Body)))
	for rows.Scan() {
		var name string
		var value float64
		if _, err := fmt.Sscan(rows.Text(), &name, &value); err == nil {
			values[name] = value
		}
	}
	h.ResidentMB = values["process_resident_memory_bytes"] / (1 << 20)
	h.Goroutines, h.Files = int(values["go_goroutines"]), int(values["process_open_fds"])
	return rows.Err()
}
