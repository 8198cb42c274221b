// Command api is the server: it answers requests, analyses scans, or both.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"

	"neuroscreen/internal/config"
	"neuroscreen/internal/service"
	"neuroscreen/internal/version"
)

func main() {
	var cli struct {
		config.Server
		NewAdminKey bool             `help:"Make another admin key for the site, say which file holds it, and stop: for when all are lost. It may be run beside the service."`
		Version     kong.VersionFlag `help:"Print the version and stop."`
	}
	kong.Parse(&cli, append(config.Options(),
		kong.Name("neuroscreen-server"),
		kong.Description("NeuroScreen server. Research use: every output is for review by a qualified physician."),
		kong.Vars{"version": version.String()},
		kong.UsageOnError(),
	)...)

	// The first signal stops gracefully, a second at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := spoolBesideScans(cli.Data); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	run := func() error { return service.Run(ctx, cli.Server, service.Parts{Out: os.Stdout, Err: os.Stderr}) }
	if cli.NewAdminKey {
		run = func() error {
			file, err := service.NewAdminKey(ctx, cli.Storage, slog.New(slog.NewTextHandler(os.Stderr, nil)))
			if file != "" {
				fmt.Printf("The new admin key of site %s is in %s, which only this user can read.\n", cli.Site, file)
			}
			return err
		}
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "neuroscreen-server:", err)
		os.Exit(1)
	}
}

// spoolBesideScans has functional runs spooled in the data folder, unless TMPDIR
// says where: a container has no folder for temporary files, and elsewhere it may
// be memory.
func spoolBesideScans(data string) error {
	if os.Getenv("TMPDIR") != "" {
		return nil
	}
	folder := filepath.Join(data, "spool")
	if err := os.MkdirAll(data, 0o711); err != nil {
		return fmt.Errorf("data folder: %w; choose another with --data", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("spool folder: %w", err)
	}
	return os.Setenv("TMPDIR", folder)
}
