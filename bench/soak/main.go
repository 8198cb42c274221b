// Command soak breaks the running programs for a long time and writes what
// came of it into a page between two marks. `make soak` builds what it needs.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"neuroscreen/internal/faults"
	"neuroscreen/internal/version"
)

const (
	begin = "<!-- make soak writes from here -->\n"
	end   = "<!-- to here -->\n"
)

func main() {
	log.SetFlags(log.Ltime)
	var opts faults.Options
	flag.StringVar(&opts.Server, "server", "bin/neuroscreen-server", "program to break")
	flag.StringVar(&opts.Head, "head", "testdata/heads/healthy_45M.nii.gz", "scan that is analysed to its end")
	flag.StringVar(&opts.Only, "only", "", "one fault's name")
	flag.IntVar(&opts.Uploads, "uploads", 80, "scans accepted at least under each fault that takes many")
	flag.IntVar(&opts.Times, "times", 5, "how often each fault happens at least")
	page := flag.String("page", "", "file to write the table into; standard output without")
	flag.Parse()
	opts.Log = log.Printf
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, opts, *page); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, opts faults.Options, page string) error {
	dir, err := os.MkdirTemp("", "neuroscreen-soak-")
	if err != nil {
		return err
	}
	// Postgres runs as another user when this is root.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	started := time.Now()
	report, err := faults.Run(ctx, dir, opts)
	if err != nil {
		return fmt.Errorf("%w (logs in %s)", err, dir)
	}
	text := fmt.Sprintf("Measured %s with NeuroScreen %s on %d processors, in %s.\n\n%s",
		started.UTC().Format(time.DateOnly), version.String(), runtime.NumCPU(), time.Since(started).Round(time.Second), report.Markdown())
	if page == "" {
		fmt.Print(text)
	} else if err := replace(page, text); err != nil {
		return err
	}
	if report.Failed() {
		return fmt.Errorf("something was lost, doubled, wrong or left over; logs in %s", dir)
	}
	return os.RemoveAll(dir)
}

func replace(page, text string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table", page)
	}
	return os.WriteFile(page, []byte(head+begin+text+end+tail), 0o644)
}
