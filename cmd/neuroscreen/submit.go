package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"neuroscreen"
	"neuroscreen/internal/client"
	"neuroscreen/internal/nifti"
	"neuroscreen/internal/qc"
	"neuroscreen/internal/words"
)

type submitCmd struct {
	server
	Scan      string   `arg:"" type:"existingfile" help:"NIfTI file (.nii, .nii.gz, .hdr or .img)."`
	Subject   string   `required:"" help:"The subject's identifier at your site."`
	Age       float64  `required:"" help:"Age in years."`
	Sex       string   `required:"" enum:"F,M" help:"F or M."`
	Modality  string   `default:"T1w" enum:"T1w,bold" help:"T1w, or bold for a functional run."`
	TR        *float64 `name:"tr" help:"Repetition time of a functional run in seconds."`
	ScanDate  string   `help:"YYYY-MM-DD."`
	Scanner   string   `help:"Scanner, as the worklist should name it."`
	Accession string   `help:"Accession number."`
	Contrast  *bool    `help:"Whether a contrast agent was given."`
	MMSE      *float64 `name:"mmse" help:"Mini-Mental State Examination, 0 to 30."`
	Wait      bool     `help:"Wait for the result and print it as a table."`
	Quiet     bool     `short:"q" help:"No progress on standard error."`
}

// inPiecesFrom on, a file is sent in pieces: to send it from its start again
// after a broken connection would take long.
const inPiecesFrom = 64 << 20

// Validate is called by kong.
func (c *submitCmd) Validate() error { return validPerson(c.Age, c.MMSE) }

func (c *submitCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	header, image, err := nifti.Files(c.Scan)
	if err != nil {
		return refusal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	u := client.Upload{Scan: f, Name: image, Metadata: neuroscreen.Metadata{
		SubjectID: c.Subject, AgeYears: &c.Age, Sex: neuroscreen.Sex(c.Sex), Modality: neuroscreen.Modality(c.Modality), TRSeconds: c.TR, ScanDate: c.ScanDate,
		Scanner: c.Scanner, AccessionNumber: c.Accession, ContrastAgent: c.Contrast, MMSE: c.MMSE,
	}}
	if header != "" {
		if u.Header, err = os.ReadFile(header); err != nil {
			return err
		}
	}
	pause := api.Pause
	if !c.Quiet {
		u.Progress = progressBar()
		api.Pause = func(ctx context.Context, d time.Duration) error {
			fmt.Fprintf(os.Stderr, "  %s does not take it; trying again in %s\n", c.Server, d)
			return pause(ctx, d)
		}
	}
	submit := api.Submit
	if st, err := f.Stat(); err == nil && st.Size() >= inPiecesFrom {
		submit = api.SubmitInPieces
	}
	scan, known, err := submit(ctx, u)
	api.Pause = pause
	if err != nil {
		return err
	}
	if len(scan.MetadataDiffers) > 0 {
		return fmt.Errorf("the service has this scan already, as %s, with another %s; correct it there (PATCH /v1/scans/%s) or submit what is right",
			scan.ID, strings.Join(scan.MetadataDiffers, ", "), scan.ID)
	}
	if known && !c.Quiet {
		fmt.Fprintln(os.Stderr, "the service has this scan already")
	}
	if !c.Wait {
		fmt.Println(scan.ID)
		return nil
	}
	scan, err = api.Wait(ctx, scan.ID, func(e client.ScanEvent) {
		if !c.Quiet {
			fmt.Fprintf(os.Stderr, "  %s\n", e.State)
		}
	})
	if err != nil {
		return err
	}
	return c.print(ctx, api, scan)
}

// progressBar draws on standard error, at most ten times a second.
func progressBar() func(sent, total int64) {
	const width = 40
	var drawn time.Time
	return func(sent, total int64) {
		if total == 0 || sent < total && time.Since(drawn) < 100*time.Millisecond {
			return
		}
		drawn = time.Now()
		done := int(sent * width / total)
		fmt.Fprintf(os.Stderr, "\r  sending [%s%s] %3d %%", strings.Repeat("#", done), strings.Repeat(".", width-done), sent*100/total)
		if sent == total {
			fmt.Fprintln(os.Stderr)
		}
	}
}

// print shows the end of a scan: its result in short, or why there is none.
func (c *submitCmd) print(ctx context.Context, api *client.API, scan client.Scan) error {
	if scan.State == neuroscreen.Refused && len(scan.Reasons) > 0 {
		return qc.Refuse(scan.Reasons)
	}
	if scan.State != neuroscreen.Scored {
		err := fmt.Errorf("scan %s ended as %s", scan.ID, scan.State)
		for _, r := range scan.Reasons {
			err = fmt.Errorf("%w; %s", err, r.Text)
		}
		return err
	}
	res, err := api.GetResultWithResponse(ctx, scan.ID, nil)
	if err != nil {
		return err
	}
	if res.JSON200 == nil {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	return printResult(os.Stdout, res.JSON200, scan.Metadata)
}

// printResult is a result on a few lines: who it was computed for (as the
// service has it, not as this call said it), quality, head size, hippocampi,
// and each score. Probabilities stand in the report, where their prior, cohort
// and limits have room.
func printResult(out io.Writer, r *neuroscreen.Result, m client.Metadata) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "\nsubject %s", r.SubjectID)
	if m.AgeYears != nil {
		fmt.Fprintf(w, ", %g years", *m.AgeYears)
	}
	fmt.Fprintf(w, ", %s\tscan %s\n", m.Sex, r.ScanID)
	fmt.Fprintf(w, "quality\t%s%s\n", r.QC.Verdict, codes(r.QC.Reasons))
	if r.IntracranialVolumeMM3 != nil {
		fmt.Fprintf(w, "intracranial volume\t%.0f ml\n", *r.IntracranialVolumeMM3/1000)
	}
	if f := r.FMRI; f != nil {
		fmt.Fprintf(w, "run\t%d frames of %.4g s, %d of them outliers\n", f.Frames, f.TRSeconds, len(f.Quality.OutlierFrames))
		fmt.Fprintf(w, "head motion\t%.2f mm from frame to frame on average, %.2f at most\n", f.Motion.MeanFDMM, f.Motion.MaxFDMM)
		fmt.Fprintf(w, "signal\t%.0f times its noise over time, %d degrees of freedom after cleaning\n", f.Quality.MedianTSNR, f.Clean.DegreesOfFreedom)
	}
	for _, v := range r.Volumes {
		if !strings.HasSuffix(v.Structure, "-Hippocampus") {
			continue
		}
		fmt.Fprintf(w, "%s\t%.0f ± %.0f mm3", v.Structure, v.MM3, v.StandardErrorMM)
		if v.Percentile != nil {
			fmt.Fprintf(w, ", expected %.0f, percentile %s", *v.ExpectedMM3, words.Percentile(*v.Percentile))
		}
		fmt.Fprintln(w)
	}
	for _, s := range r.Scores {
		fmt.Fprintf(w, "%s [%s]\t", strings.ReplaceAll(string(s.Condition), "_", " "), s.Evidence)
		switch {
		case s.Abstained != nil:
			fmt.Fprintf(w, "no answer: %s\n", *s.Abstained)
		case s.LikelihoodRatio != nil:
			fmt.Fprintf(w, "%s, likelihood ratio %s", s.Flag, words.Ratio(*s.LikelihoodRatio))
			if s.CI95 != nil {
				fmt.Fprintf(w, " (95 %% interval %s to %s)", words.Bound(s.CI95[0]), words.Bound(s.CI95[1]))
			}
			if s.Side != nil {
				fmt.Fprintf(w, ", %s side", *s.Side)
			}
			fmt.Fprintln(w)
		}
	}
	return w.Flush()
}

func codes(rs []neuroscreen.Reason) string {
	if len(rs) == 0 {
		return ""
	}
	var c []string
	for _, r := range rs {
		c = append(c, r.Code)
	}
	return " (" + strings.Join(c, ", ") + ")"
}

func newTable() *tabwriter.Writer { return tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0) }

func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format("2006-01-02")
}

func parseID(s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return id, fmt.Errorf("%q is not an id such as 0190b2a3-...", s)
	}
	return id, nil
}
