package validate

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/table"
)

// person is one row of a manifest, ready to be scored.
type person struct {
	id       string
	scanner  norm.Scanner
	features model.Features
	labels   map[neuroscreen.Condition]string // labelCase, labelControl or a side
	healthy  bool
}

// mostTesla is what the service takes from a scan's metadata too.
const mostTesla = 25

// Labels in a manifest's columns named for the conditions.
const (
	labelControl = "0"
	labelCase    = "1"
)

// Scan is a row of a manifest that names a scan.
type Scan struct {
	Path     string // as written
	Metadata neuroscreen.Metadata
}

// Skipped is a row that could not be used.
type Skipped struct {
	ID  string `json:"id"`
	Why string `json:"why"`
}

// readPeople reads the manifest and measures its scans. A scan that is refused,
// or that nothing may be scored of, is skipped with its reason; a row that is
// wrong is an error that names it.
func readPeople(ctx context.Context, in io.Reader, o Options) (people []person, skipped []Skipped, err error) {
	more := []string{"scan", "scanner", "manufacturer", "field_strength_t", "healthy"}
	for _, c := range neuroscreen.Conditions {
		more = append(more, string(c))
	}
	rows, err := table.ReadManifest(in, more...)
	if err != nil {
		return nil, nil, err
	}
	for i, r := range rows {
		p, err := personOf(r)
		if err != nil {
			return nil, nil, err
		}
		if path := r.More["scan"]; path == "" {
			p.features = r.Features(table.Options{Segmenter: o.Segmenter})
			p.features.Calibration.Scanner = p.scanner
		} else {
			if o.Measure == nil || len(r.Volumes) > 0 || r.AgeYears == nil || r.Sex == "" {
				return nil, nil, rowError(r, "a row with a scan needs age and sex and holds no volumes")
			}
			m := neuroscreen.Metadata{SubjectID: r.ID, AgeYears: r.AgeYears, Sex: r.Sex, Modality: neuroscreen.T1w, MMSE: r.MMSE, Scanner: p.scanner.Name, Manufacturer: p.scanner.Manufacturer}
			if t := p.scanner.FieldStrengthT; t > 0 {
				m.FieldStrengthT = &t
			}
			p.features, err = o.Measure(ctx, Scan{Path: path, Metadata: m})
			if e := neuroscreen.AsError(err); e != nil && e.Code == neuroscreen.CodeUnprocessable {
				skipped = append(skipped, Skipped{r.ID, "the scan is refused: " + e.Message})
				continue
			} else if err != nil {
				return nil, nil, fmt.Errorf("row %s: %w", r.ID, err)
			}
			if o.Progress != nil {
				o.Progress(i+1, len(rows))
			}
		}
		if why := unusable(p.features); why != "" {
			skipped = append(skipped, Skipped{r.ID, why})
			continue
		}
		if p.features.Calibration.Segmenter == norm.Unknown {
			return nil, nil, rowError(r, "it is not said what measured the volumes: fill the column segmenter, or give --segmenter")
		}
		people = append(people, p)
	}
	for _, p := range people {
		if a, b := people[0].features.Calibration.Segmenter, p.features.Calibration.Segmenter; a != b {
			return nil, nil, neuroscreen.Errorf(neuroscreen.CodeInvalid, "mixed-segmenters",
				"the rows come from %s and from %s: figures, shift and recalibration belong to one of them, so make a manifest of each", a, b)
		}
	}
	return people, skipped, nil
}

// unusable says why nobody may be judged or calibrated by these features, "" if
// they may. Scores abstain on both by themselves; the fit of a shift does not.
func unusable(f model.Features) string {
	if f.Withhold == "" && f.QC == neuroscreen.VerdictRefuse {
		return "the image failed quality control"
	}
	return f.Withhold
}

func personOf(r table.Row) (person, error) {
	p := person{id: r.ID, scanner: norm.Scanner{Name: r.More["scanner"], Manufacturer: r.More["manufacturer"]}, labels: map[neuroscreen.Condition]string{}}
	if s := r.More["field_strength_t"]; s != "" {
		t, err := strconv.ParseFloat(s, 64)
		if err != nil || !(t > 0 && t <= mostTesla) {
			return p, rowError(r, "column field_strength_t: %q is no field strength in tesla", s)
		}
		p.scanner.FieldStrengthT = t
	}
	switch strings.ToLower(r.More["healthy"]) {
	case "", "0", "no":
	case "1", "yes":
		p.healthy = true
	default:
		return p, rowError(r, "column healthy: %q is neither 1 nor 0", r.More["healthy"])
	}
	for _, c := range neuroscreen.Conditions {
		l := strings.ToLower(r.More[string(c)])
		switch {
		case l == "":
			continue
		case l == labelCase || l == labelControl:
		case c == neuroscreen.MesialTemporalSclerosis && (l == "left" || l == "right"):
		default:
			want := "1 for a case, 0 for a control, or empty"
			if c == neuroscreen.MesialTemporalSclerosis {
				want = "left, right, 1 (a case whose side is not known), 0 for a control, or empty"
			}
			return p, rowError(r, "column %s: %q is not %s", c, l, want)
		}
		if p.healthy && l != labelControl {
			return p, rowError(r, "healthy and a case of %s at once", c)
		}
		p.labels[c] = l
	}
	return p, nil
}

func rowError(r table.Row, format string, a ...any) error {
	return neuroscreen.Errorf(neuroscreen.CodeInvalid, "invalid-value", "line %d (%s): %s", r.Line, r.ID, fmt.Sprintf(format, a...))
}
