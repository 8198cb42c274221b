package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"neuroscreen/internal/version"
)

// loads are the parts of the page on load, each between two marks.
var loads = []struct {
	name string
	run  func(bin string, cases int) (string, error)
}{
	{"uploads", func(bin string, _ int) (string, error) { return uploadTable(bin, runtime.NumCPU()) }},
	{"workers", workerTable},
	{"cases", caseTable},
}

// load runs one part, or all, and prints what comes of it, or writes it into
// the page.
func load(bin, only, page string, cases int) error {
	found := false
	for _, l := range loads {
		if only != "all" && only != l.name {
			continue
		}
		found = true
		started := time.Now()
		text, err := l.run(bin, cases)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		text = fmt.Sprintf("Measured %s with NeuroScreen %s on %d processors, in %s.\n\n%s",
			started.UTC().Format(time.DateOnly), version.String(), runtime.NumCPU(), time.Since(started).Round(time.Second), text)
		if page == "" {
			fmt.Print(text, "\n")
		} else if err := replace(page, l.name, text); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("there is no load %q", only)
	}
	return nil
}

func replace(page, name, text string) error {
	begin, end := fmt.Sprintf("<!-- make load writes from here: %s -->\n", name), fmt.Sprintf("<!-- to here: %s -->\n", name)
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for %s", page, name)
	}
	return os.WriteFile(page, []byte(head+begin+text+end+tail), 0o644)
}
