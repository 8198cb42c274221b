package httpapi

import (
	"context"
	"encoding/csv"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/store"
)

// tablePage is how many lines of a table are read at once. A page at a time, no
// connection to the database waits for a slow client.
const tablePage = 200

// cohortTable writes all pages as one table, beginning with the first, which
// was read while an error could still be answered.
type cohortTable struct {
	*cohort
	ctx    context.Context
	filter store.CohortFilter
	scans  []CohortScan
	next   string
}

func (t *cohortTable) VisitGetCohortResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", "attachment; filename=cohort.csv")
	w.WriteHeader(http.StatusOK)
	if err := t.write(w); err != nil {
		t.writeProblem(w, exchangeFrom(t.ctx).req, err)
		panic(http.ErrAbortHandler) // the client must not take half a table for a whole one
	}
	return nil
}

func (t *cohortTable) write(w http.ResponseWriter) (err error) {
	out := csv.NewWriter(w)
	columns := t.columns()
	line := make([]string, len(columns))
	for n, c := range columns {
		line[n] = c.name
	}
	out.Write(line) // errors stay until Flush
	for {
		for _, scan := range t.scans {
			for n, c := range columns {
				line[n] = c.cell(scan)
			}
			out.Write(line)
		}
		if out.Flush(); out.Error() != nil || t.next == "" {
			return out.Error()
		}
		t.filter.Cursor = t.next
		if t.scans, t.next, err = t.page(t.ctx, t.filter); err != nil {
			return err
		}
	}
}

// column of the table.
type column struct {
	name string
	cell func(CohortScan) string
}

// scoresBeside are models whose scores stand beside the one that decides: they
// have neither prior nor flag.
var scoresBeside = []string{"alzheimers-effects", "alzheimers-mmse"}

// indexNames in the order of a result.
var indexNames = []string{"hippocampal_asymmetry_percent", "hoc_left", "hoc_right", "brain_parenchymal_fraction"}

// columns of the table. Those that package table reads have its names.
func (c *cohort) columns() []column {
	out := []column{
		{"id", func(s CohortScan) string { return s.ScanID.String() }},
		{"subject_id", func(s CohortScan) string { return textCell(s.SubjectID) }},
		{"scan_date", func(s CohortScan) string { return val(s.ScanDate) }},
		{"age", func(s CohortScan) string { return numberCell(s.AgeYears) }},
		{"sex", func(s CohortScan) string { return string(s.Sex) }},
		{"scanner", func(s CohortScan) string { return textCell(val(s.Scanner)) }},
		{"manufacturer", func(s CohortScan) string { return textCell(val(s.Manufacturer)) }},
		{"field_strength_t", func(s CohortScan) string { return numberCell(s.FieldStrengthT) }},
		{"quality", func(s CohortScan) string { return string(s.Quality) }},
		{"quality_reasons", func(s CohortScan) string {
			codes := []string{}
			for _, r := range s.QualityReasons {
				codes = append(codes, r.Code)
			}
			return strings.Join(codes, " ")
		}},
		{"decision", func(s CohortScan) string { return string(val(s.Decision)) }},
		{"left_out", func(s CohortScan) string {
			names := []string{}
			for _, v := range s.Volumes {
				if v.LeftOut {
					names = append(names, v.Structure)
				}
			}
			return strings.Join(names, " ")
		}},
		{"segmenter", func(CohortScan) string { return string(norm.Network) }},
		{"EstimatedTotalIntraCranialVol", func(s CohortScan) string { return numberCell(s.IntracranialVolumeMm3) }},
	}
	for _, a := range anatomy.Structures[1:] {
		cell := func(of func(neuroscreen.Volume) *float64) func(CohortScan) string {
			return func(s CohortScan) string {
				n := slices.IndexFunc(s.Volumes, func(v neuroscreen.Volume) bool { return v.Structure == a.Name })
				if n < 0 || s.Volumes[n].LeftOut {
					return ""
				}
				return numberCell(of(s.Volumes[n]))
			}
		}
		out = append(out,
			column{a.Name, cell(func(v neuroscreen.Volume) *float64 { return &v.MM3 })},
			column{a.Name + "_se", cell(func(v neuroscreen.Volume) *float64 { return &v.StandardErrorMM })},
			column{a.Name + "_z", cell(func(v neuroscreen.Volume) *float64 { return v.Z })})
	}
	for _, name := range indexNames {
		out = append(out, column{name, func(s CohortScan) string {
			n := slices.IndexFunc(s.Indices, func(i neuroscreen.Index) bool { return i.Name == name })
			if n < 0 {
				return ""
			}
			return numberCell(&s.Indices[n].Value)
		}})
	}
	for _, condition := range neuroscreen.Conditions {
		out = append(out, c.scoreColumns(string(condition), true, func(s CohortScan) int { return neuroscreen.Deciding(s.Scores, condition) })...)
	}
	for _, model := range scoresBeside {
		out = append(out, c.scoreColumns(strings.ReplaceAll(model, "-", "_"), false, func(s CohortScan) int {
			return slices.IndexFunc(s.Scores, func(o neuroscreen.Score) bool { return o.Model == model })
		})...)
	}
	return append(out,
		column{"result_version", func(s CohortScan) string { return strconv.Itoa(s.ResultVersion) }},
		column{"settings_version", func(s CohortScan) string { return strconv.Itoa(s.SettingsVersion) }},
		column{"software_version", func(s CohortScan) string { return s.Software.Version }},
		column{"kernel", func(s CohortScan) string { return s.Software.Kernel }},
		column{"network", func(s CohortScan) string { return filesCell(s.Software.Network) }},
		column{"norms", func(s CohortScan) string { return filesCell(s.Software.Norms...) }},
		column{"models", func(s CohortScan) string { return filesCell(s.Software.Models...) }},
		column{"intended_use", func(CohortScan) string { return neuroscreen.IntendedUse }},
	)
}

// scoreColumns are those of the score at an index, which is -1 for none.
func (c *cohort) scoreColumns(prefix string, decides bool, at func(CohortScan) int) []column {
	col := func(name string, of func(CohortScan, neuroscreen.Score) string) column {
		return column{prefix + "_" + name, func(s CohortScan) string {
			if n := at(s); n >= 0 {
				return of(s, s.Scores[n])
			}
			return ""
		}}
	}
	bound := func(n int) func(CohortScan, neuroscreen.Score) string {
		return func(_ CohortScan, o neuroscreen.Score) string {
			if o.CI95 == nil {
				return ""
			}
			return numberCell(&o.CI95[n])
		}
	}
	said := func(of func(CohortModel) string) func(CohortScan, neuroscreen.Score) string {
		return func(s CohortScan, o neuroscreen.Score) string {
			m := c.known[modelKey(o.Model, s.Software.Models)]
			if m == nil || o.LikelihoodRatio == nil {
				return ""
			}
			return textCell(of(*m))
		}
	}
	out := []column{
		col("model", func(_ CohortScan, o neuroscreen.Score) string { return o.Model }),
		col("evidence", func(_ CohortScan, o neuroscreen.Score) string { return string(o.Evidence) }),
		col("lr", func(_ CohortScan, o neuroscreen.Score) string { return numberCell(o.LikelihoodRatio) }),
		col("lr_low", bound(0)),
		col("lr_high", bound(1)),
	}
	if decides {
		out = append(out,
			col("prior", func(_ CohortScan, o neuroscreen.Score) string { return numberCell(o.Prior) }),
			col("posterior", func(_ CohortScan, o neuroscreen.Score) string { return numberCell(o.Posterior) }),
			col("flag", func(_ CohortScan, o neuroscreen.Score) string { return string(o.Flag) }),
			col("side", func(_ CohortScan, o neuroscreen.Score) string { return val(o.Side) }))
	}
	return append(out,
		col("abstained", func(_ CohortScan, o neuroscreen.Score) string { return textCell(val(o.Abstained)) }),
		col("cohort", said(func(m CohortModel) string { return m.Cohort })),
		col("limits", said(func(m CohortModel) string { return m.Limits })))
}

func numberCell(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}

// textCell stands behind an apostrophe where a spreadsheet would take it for a
// formula, which can reach out of the sheet.
func textCell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// filesCell is a list as name:hash, with spaces between.
func filesCell(assets ...neuroscreen.Asset) string {
	out := make([]string, len(assets))
	for n, a := range assets {
		out[n] = a.Name + ":" + a.SHA256
	}
	return strings.Join(out, " ")
}
