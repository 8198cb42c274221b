package main

import (
	"context"
	"io"
	"net/http"
	"os"

	"neuroscreen"
	"neuroscreen/internal/client"
)

type cohortCmd struct {
	server
	Out       string                 `type:"path" help:"CSV to write; without it, standard output."`
	Condition *neuroscreen.Condition `help:"Results that have a score of it: alzheimers, parkinsons or mesial_temporal_sclerosis."`
	Flag      *neuroscreen.Flag      `help:"Of that score, or of the worst: none, review or flagged."`
	AgeFrom   *float64               `help:"Years at the scan, at least."`
	AgeTo     *float64               `help:"Years at the scan, at most."`
	Sex       *neuroscreen.Sex       `help:"F or M."`
	Scanner   *string                `help:"Scanner, as it was posted."`
	DateFrom  *string                `help:"Scanned on this day (YYYY-MM-DD) or later."`
	DateTo    *string                `help:"Scanned on this day or before."`
	Quality   *neuroscreen.Verdict   `help:"Of the image: pass or review."`
	Visit     *string                `help:"One scan for each person: newest or first."`
	MinLR     *float64               `name:"min-lr" help:"Likelihood ratio of the condition, at least."`
	Structure *string                `help:"FreeSurfer name of the structure that --max-z is for."`
	MaxZ      *float64               `help:"Its z, at most."`
}

// Run writes the table as the service sends it.
func (c *cohortCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	res, err := api.GetCohort(ctx, &client.GetCohortParams{
		Condition: c.Condition, Flag: c.Flag, AgeFrom: c.AgeFrom, AgeTo: c.AgeTo, Sex: c.Sex, Scanner: c.Scanner, ScanDateFrom: c.DateFrom, ScanDateTo: c.DateTo,
		Quality: c.Quality, Visit: c.Visit, LikelihoodRatioMin: c.MinLR, Structure: c.Structure, ZMax: c.MaxZ,
	}, func(_ context.Context, r *http.Request) error {
		r.Header.Set("Accept", "text/csv")
		return nil
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
		return client.ProblemOf(res, body)
	}
	write := func(w io.Writer) error {
		_, err := io.Copy(w, res.Body)
		return err
	}
	if c.Out == "" {
		return write(os.Stdout)
	}
	return replaceFile(c.Out, write)
}
