package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"neuroscreen/internal/client"
)

type auditCmd struct {
	server
	Format string `help:"jsonl or csv." enum:"jsonl,csv" default:"jsonl"`
	Scan   string `help:"Only what concerns this scan."`
	Actor  string `help:"Only what this key did."`
}

// Run prints the trail, newest first, and says on standard error whether its
// chain is unbroken.
func (c *auditCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	params := client.ListAuditParams{Limit: ptr(auditPage)}
	if c.Scan != "" {
		id, err := parseID(c.Scan)
		if err != nil {
			return err
		}
		params.ScanID = &id
	}
	if c.Actor != "" {
		params.Actor = &c.Actor
	}
	write := writeAudit(os.Stdout, c.Format)
	for {
		res, err := api.ListAuditWithResponse(ctx, &params)
		if err != nil {
			return err
		}
		if res.JSON200 == nil {
			return client.ProblemOf(res.HTTPResponse, res.Body)
		}
		if err := write(res.JSON200.Entries); err != nil {
			return err
		}
		if params.Cursor = res.JSON200.NextCursor; params.Cursor == nil {
			break
		}
	}
	check, err := api.VerifyAuditWithResponse(ctx)
	if err != nil {
		return err
	}
	if check.JSON200 == nil {
		return client.ProblemOf(check.HTTPResponse, check.Body)
	}
	fmt.Fprintf(os.Stderr, "the site's trail has %d entries; its chain is unbroken\n", check.JSON200.Entries)
	return nil
}

const auditPage = 200

func ptr[T any](v T) *T { return &v }

func writeAudit(w io.Writer, format string) func([]client.AuditEntry) error {
	if format == "jsonl" {
		enc := json.NewEncoder(w)
		return func(entries []client.AuditEntry) error {
			for _, e := range entries {
				if err := enc.Encode(e); err != nil {
					return err
				}
			}
			return nil
		}
	}
	table := csv.NewWriter(w)
	table.Write([]string{"seq", "at", "actor", "action", "object", "details", "scan_ids", "hash"})
	return func(entries []client.AuditEntry) error {
		for _, e := range entries {
			details := ""
			if e.Details != nil {
				details = *e.Details
			}
			scans := make([]string, len(e.ScanIds))
			for i, id := range e.ScanIds {
				scans[i] = id.String()
			}
			table.Write([]string{strconv.FormatInt(e.Seq, 10), e.At.Format(time.RFC3339Nano), e.Actor, e.Action, e.Object, details, strings.Join(scans, " "), e.Hash})
		}
		table.Flush()
		return table.Error()
	}
}

type eraseCmd struct {
	server
	Subject string `arg:"" help:"The subject's identifier, as it was posted."`
	Yes     bool   `help:"Erase. Without it nothing is done but to say what would be."`
}

// Run erases a subject. Nothing brings it back.
func (c *eraseCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	if !c.Yes {
		res, err := api.FindScansWithResponse(ctx, &client.FindScansParams{SubjectID: &c.Subject})
		if err != nil {
			return err
		}
		if res.JSON200 == nil {
			return client.ProblemOf(res.HTTPResponse, res.Body)
		}
		for _, s := range res.JSON200.Scans {
			fmt.Println(s.ID, s.State)
		}
		return errors.New("nothing was erased; add --yes to erase these scans with results, files and links for good")
	}
	res, err := api.EraseSubjectWithResponse(ctx, client.NewErasure{SubjectID: c.Subject})
	if err != nil {
		return err
	}
	if res.JSON200 == nil {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	if res.JSON200.Scans == 0 {
		return errors.New("this site has no scan of such a subject")
	}
	fmt.Fprintf(os.Stderr, "%d scans erased; the audit trail keeps their ids. Back-ups made before still hold them.\n", res.JSON200.Scans)
	return nil
}
