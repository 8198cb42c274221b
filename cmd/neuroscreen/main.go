// Command neuroscreen measures brain scans on the command line and speaks to
// the service.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/config"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/version"
)

type cli struct {
	Analyze   analyzeCmd   `cmd:"" help:"Measure and score a scan; needs no server and no database."`
	Decode    decodeCmd    `cmd:"" help:"Tell from a task run what the person did, and how surely; needs no server and no database."`
	Watch     watchCmd     `cmd:"" help:"Follow the quality of a functional run while its volumes appear in a folder; needs no server and no database."`
	Score     scoreCmd     `cmd:"" help:"Score volumes that FreeSurfer measured; needs no server and no database."`
	Validate  validateCmd  `cmd:"" help:"Check the scores on labelled scans or volumes of your own, and propose a calibration; needs no server and no database."`
	Submit    submitCmd    `cmd:"" help:"Hand a scan to a service; --wait prints its result."`
	Cohort    cohortCmd    `cmd:"" help:"Write the results of a cohort as CSV, from a service."`
	Site      siteCmd      `cmd:"" help:"Print a site's settings, and take over a proposed calibration."`
	Keys      keysCmd      `cmd:"" help:"Make, list and revoke the keys of a site."`
	Backup    backupCmd    `cmd:"" help:"Write database, files and secret into one archive; the service may run meanwhile."`
	Restore   restoreCmd   `cmd:"" help:"Put such an archive into an empty place, or check it."`
	Reproduce reproduceCmd `cmd:"" help:"Analyse a stored scan again and compare the result with the stored one; the service may run meanwhile."`
	Audit     auditCmd     `cmd:"" help:"Print who read or changed what, and check that the trail is unbroken."`
	Erase     eraseCmd     `cmd:"" help:"Erase a subject with scans, results, files and links."`
	Migrate   migrateCmd   `cmd:"" help:"Bring the database to this program's schema; the server does so itself when it starts."`
	Ready     readyCmd     `cmd:"" help:"Say by the exit code whether a service is ready."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// Exit codes.
const (
	exitFault   = 1 // something went wrong here: a full disk, no server
	exitUsage   = 2 // the command line is wrong
	exitRefused = 3 // the scan was refused; the problem is on standard output as JSON
)

const description = `Automatic measurement of brain MRI, compared with healthy people.

Research use: results are for review by a qualified physician together with the source images.

Exit codes: 0 done, 1 fault, 2 wrong usage, 3 scan refused (the reason is printed as JSON).`

func main() {
	var c cli
	parser := kong.Must(&c, append(config.Options(), kong.Name("neuroscreen"), kong.Description(description))...)
	k, err := parser.Parse(os.Args[1:])
	if err != nil {
		parser.Errorf("%s", err)
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(); err != nil {
		os.Exit(fail(err))
	}
}

// fail prints an error the way that its reader needs it and returns the exit
// code: a refusal as a problem in JSON for programs, anything else as a line.
func fail(err error) int {
	if e, ok := errors.AsType[*neuroscreen.Error](err); ok && e.Code == neuroscreen.CodeUnprocessable {
		return refused(e.Message, problem{
			Type: "/problems/" + e.Type, Title: "The scan was refused", Status: 422, Detail: e.Message, Field: e.Field, Reasons: qc.Reasons(err),
		})
	}
	if p, ok := errors.AsType[*client.ProblemError](err); ok && p.Status == 422 && p.Name() != "idempotency-key-reused" {
		return refused(p.Error(), p.Problem)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		fmt.Fprintf(os.Stderr, "neuroscreen: the service does not answer (%v); is it running there? Name another with --server.\n", u)
		return exitFault
	}
	fmt.Fprintln(os.Stderr, "neuroscreen:", err)
	return exitFault
}

// refused prints a problem of this program's or of the service's.
func refused(why string, problem any) int {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	enc.Encode(problem)
	fmt.Fprintln(os.Stderr, "neuroscreen: refused:", why)
	return exitRefused
}

// problem is an RFC 9457 problem, as the service sends it.
type problem struct {
	Type    string               `json:"type"`
	Title   string               `json:"title"`
	Status  int                  `json:"status"`
	Detail  string               `json:"detail"`
	Field   string               `json:"field,omitempty"`
	Reasons []neuroscreen.Reason `json:"reasons,omitempty"`
}

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println(version.String())
	return nil
}
