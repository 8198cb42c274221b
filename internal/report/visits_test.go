package report

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/timeline"
)

// withVisits gives the sample visits before it: years ago, and what the volumes
// were then, as a factor.
func withVisits(p Page, change func(*neuroscreen.Result, *neuroscreen.Metadata), before ...map[string]float64) Page {
	var visits []timeline.Visit
	for n := range len(before) + 1 {
		r, m := *p.Result, p.Metadata
		ago := 2 * (len(before) - n)
		age := *p.Metadata.AgeYears - float64(ago)
		m.AgeYears, m.ScanDate = &age, time.Date(2026-ago, 3, 14, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
		if n < len(before) {
			r.ScanID += string(rune('a' + n))
			r.Volumes = append([]neuroscreen.Volume{}, r.Volumes...)
			for i := range r.Volumes {
				if f, ok := before[n][r.Volumes[i].Structure]; ok {
					r.Volumes[i].MM3 *= f
				}
			}
			if change != nil {
				change(&r, &m)
			}
		}
		visits = append(visits, timeline.NewVisit(r, m, 1, time.Time{}))
	}
	t := timeline.Make("S", visits, norm.Default(), norm.Calibration{Segmenter: norm.Network})
	p.Timeline = &t
	return p
}

func TestVisits(t *testing.T) {
	other := func(r *neuroscreen.Result, _ *neuroscreen.Metadata) { r.Software.Network.SHA256 = "other" }
	shrunk := map[string]float64{"Left-Hippocampus": 1.3, "Left-Lateral-Ventricle": .6, "Right-Amygdala": 1.5, "Left-Thalamus": 1.6}
	rejected := func(p Page, visit int) Page {
		visits := slices.Clone(p.Timeline.Visits)
		visits[visit].Rejected = true
		t := timeline.Make("S", visits, norm.Default(), norm.Calibration{Segmenter: norm.Network})
		p.Timeline = &t
		return p
	}
	for name, tt := range map[string]struct {
		page     Page
		yes, not []string
	}{
		"none":                   {samplePage(), nil, []string{"earlier visits"}},
		"one scan":               {withVisits(samplePage(), nil), nil, []string{"earlier visits"}},
		"the visit before":       {withVisits(samplePage(), nil, shrunk), []string{"Since 2024-03-14 at 72 years, 2.0 years", "−801", "−23.1", "−401", "smaller", "Hippocampus, right", "no measurable change", "4 of 13 volumes changed measurably.", "Thalamus, left", "Lateral ventricle, left", "Detectable: the smallest change"}, []string{"Amygdala, right −"}},
		"the first one too":      {withVisits(samplePage(), nil, shrunk, nil), []string{"Since 2024-03-14 at 72 years, 2.0 years", "Since 2022-03-14 at 70 years, 4.0 years", "0 of 13 volumes changed measurably.", "4 of 13 volumes changed measurably."}, nil},
		"a rejected one between": {rejected(withVisits(samplePage(), nil, nil, shrunk), 1), []string{"Since 2022-03-14 at 70 years, 4.0 years", "0 of 13 volumes changed measurably.", "A reviewer rejected the result of at least one scan: it is compared with none."}, []string{"Since 2024-03-14", "4 of 13"}},
		"this one rejected":      {rejected(withVisits(samplePage(), nil, shrunk), 1), nil, []string{"earlier visits", "Since 2024-03-14"}},
		"other weights":          {withVisits(samplePage(), other, shrunk), []string{"Measured with different weights of the network: analyse the earlier scan again to compare."}, []string{"−801"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := withPicture(t, tt.page)
			doc := renderPDF(t, p)
			if dir := os.Getenv("NEUROSCREEN_SHOTS"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, "visits "+name+".pdf"), doc, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			sheets := sheetTexts(t, doc)
			if len(sheets) != 2 {
				t.Errorf("%d sheets", len(sheets))
			}
			for kind, text := range map[string]string{"page": render(t, p), "PDF": strings.Join(strings.Fields(strings.Join(sheets, " ")), " ")} {
				for _, w := range tt.yes {
					if !strings.Contains(text, w) {
						t.Errorf("the %s does not say %q", kind, w)
					}
				}
				for _, w := range tt.not {
					if strings.Contains(text, w) {
						t.Errorf("the %s says %q", kind, w)
					}
				}
			}
			for _, s := range view(p).Spans {
				for _, r := range s.Rows {
					if len(r.Cells) != 6 {
						t.Errorf("%d cells", len(r.Cells))
					}
				}
			}
		})
	}
}
