package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"reflect"

	"neuroscreen/internal/config"
	"neuroscreen/internal/service"
)

type reproduceCmd struct {
	config.Storage
	Scan    string `arg:"" help:"Id of the scan."`
	Version int    `name:"result-version" help:"Of its result; without it the newest." default:"0"`
}

// shownDifferences bounds the list.
const shownDifferences = 20

// Run tells whether the stored result is what its inputs give.
func (c *reproduceCmd) Run(ctx context.Context) error {
	id, err := parseID(c.Scan)
	if err != nil {
		return err
	}
	r, err := service.Reproduce(ctx, c.Storage, id, c.Version, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	if len(r.Differences) == 0 {
		fmt.Printf("version %d: the same again\n", r.Version)
		return nil
	}
	most := 0.0
	for n, d := range r.Differences {
		if r := d.Relative(); !math.IsInf(r, 1) {
			most = max(most, r)
		}
		if n < shownDifferences {
			fmt.Printf("%s: %s stored, %s now\n", d.Path, short(d.Stored), short(d.Now))
		} else if n == shownDifferences {
			fmt.Printf("and %d more\n", len(r.Differences)-n)
		}
	}
	a, b := r.Stored, r.Now
	switch {
	case a.Network != b.Network || !reflect.DeepEqual(a.Norms, b.Norms) || !reflect.DeepEqual(a.Models, b.Models):
		return fmt.Errorf("version %d was made by NeuroScreen %s with other weights, norms or models than this program's (%s): only that release can make it again", r.Version, a.Version, b.Version)
	case a.Kernel != b.Kernel:
		return fmt.Errorf("%d values differ, numbers by a share of %.1g at most: the result was made with %s kernels, this with %s, which round otherwise (NEUROSCREEN_KERNEL chooses)", len(r.Differences), most, a.Kernel, b.Kernel)
	case a.Version != b.Version:
		return fmt.Errorf("version %d was made by NeuroScreen %s, this program is %s: try that release", r.Version, a.Version, b.Version)
	}
	return errors.New("the stored result is not what its inputs give here, though version, weights, norms and models are the same: either that version was built more than once, or something was changed that must not be; keep this output for whoever looks into it")
}

// short is a value in one line.
func short(v any) string {
	b, err := json.Marshal(v)
	if err != nil || v == nil {
		return "nothing"
	}
	if len(b) > 60 {
		return string(b[:57]) + "..."
	}
	return string(b)
}
