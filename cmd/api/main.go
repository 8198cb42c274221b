// Command api is the server: it answers requests, analyses scans, or both.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"neuroscreen/internal/config"
	"neuroscreen/internal/service"
	"neuroscreen/internal/version"
)

func main() {
	var cli struct {
		config.Server
		Version kong.VersionFlag `help:"Print the version and stop."`
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
	if err := service.Run(ctx, cli.Server, service.Parts{Out: os.Stdout, Err: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, "neuroscreen-server:", err)
		os.Exit(1)
	}
}
