package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

type readyCmd struct {
	Server string `help:"Address of the service." default:"http://127.0.0.1:8080" env:"NEUROSCREEN_SERVER"`
}

// Run succeeds when the service is ready for scans; for start scripts and
// health checks of images that hold no curl.
func (c *readyCmd) Run(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Server+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", c.Server, res.Status)
	}
	return nil
}
