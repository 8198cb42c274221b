package validate

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Text writes the report for people.
func (r *Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%d people measured by %s", r.People, r.Segmenter)
	if n := len(r.Skipped); n > 0 {
		fmt.Fprintf(t, "; %d could not be used:\n", n)
		for _, s := range r.Skipped {
			fmt.Fprintf(t, "  %s: %s\n", s.ID, s.Why)
		}
	} else {
		fmt.Fprintln(t)
	}
	for _, c := range r.Conditions {
		fmt.Fprintf(t, "\n%s by %s: %d cases, %d controls\n", strings.ReplaceAll(string(c.Condition), "_", " "), strings.Join(c.Models, ", "), c.Cases, c.Controls)
		for _, a := range c.Abstained {
			fmt.Fprintf(t, "  abstained, %d cases and %d controls: %s\n", a.Cases, a.Controls, a.Why)
		}
		fmt.Fprintln(t, "  \tAUC\tslope\tintercept\tBrier\tECE (by chance)\tSpiegelhalter p")
		figures(t, "now", &c.Now)
		figures(t, "with the shift", c.WithShift)
		figures(t, "recalibrated, cross-validated", c.Recalibrated)
		thresholds(t, "now", &c.Now)
		thresholds(t, "with the shift", c.WithShift)
		thresholds(t, "recalibrated, cross-validated", c.Recalibrated)
		if s := c.Sides; s != nil && s.Known > 0 {
			fmt.Fprintf(t, "  of %d cases that name a side: %d flagged on that side, %d on the other, %d not flagged\n", s.Known, s.Correct, s.Other, s.Missed)
		}
		if len(c.Subgroups) > 0 {
			fmt.Fprintln(t, "  group\tcases, controls\tAUC\tshare of cases\tslope\tintercept\tSpiegelhalter p")
		}
		for _, g := range c.Subgroups {
			fmt.Fprintf(t, "  %s\t%d, %d\t%s\t%.2f", g.Name, g.Cases, g.Controls, withInterval(g.AUC, g.AUCCI95), g.Observed)
			if c := g.Calibration; c != nil {
				fmt.Fprintf(t, "\t%s\t%s\t%.2g", withInterval(c.Slope, c.SlopeCI95), withInterval(c.Intercept, c.InterceptCI95), c.SpiegelP)
			}
			fmt.Fprintln(t)
		}
		fmt.Fprintf(t, "  %s\n", c.Verdict)
	}
	fmt.Fprintf(t, "\nhealthy people: %d. %s\n", r.Controls.People, r.Controls.Verdict)
	if len(r.Controls.Structures) > 0 {
		fmt.Fprintln(t, "  z, mean and SD\tpeople\tnow\twith the shift, cross-validated")
	}
	for _, s := range r.Controls.Structures {
		fmt.Fprintf(t, "  %s\t%d\t%+.2f, %.2f\t%+.2f, %.2f\n", s.Structure, s.N, s.Before[0], s.Before[1], s.After[0], s.After[1])
	}
	return t.Flush()
}

func figures(w io.Writer, name string, f *Figures) {
	if f == nil {
		return
	}
	fmt.Fprintf(w, "  %s\t%s", name, withInterval(f.AUC, f.AUCCI95))
	if c := f.Calibration; c != nil {
		fmt.Fprintf(w, "\t%s\t%s\t%.3f\t%.3f (%.3f)\t%.2g", withInterval(c.Slope, c.SlopeCI95), withInterval(c.Intercept, c.InterceptCI95), c.Brier, c.ECE, c.ECEPerfect, c.SpiegelP)
	}
	fmt.Fprintln(w)
}

func thresholds(w io.Writer, name string, f *Figures) {
	if f == nil {
		return
	}
	for _, h := range f.Thresholds {
		fmt.Fprintf(w, "  %s, %s or worse:\tsensitivity %.2f [%.2f, %.2f]\tspecificity %.2f [%.2f, %.2f]\n", name, h.Flag,
			h.Sensitivity, h.SensitivityCI95[0], h.SensitivityCI95[1], h.Specificity, h.SpecificityCI95[0], h.SpecificityCI95[1])
	}
}

func withInterval(v *float64, ci *[2]float64) string {
	switch {
	case v == nil:
		return "too few people"
	case ci == nil:
		return fmt.Sprintf("%.2f", *v)
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", *v, ci[0], ci[1])
}
