// Package interoptest has a result to try the writers for other systems on.
package interoptest

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"neuroscreen"
	"neuroscreen/internal/report"
)

// Page is a result with everything that such a writer can say.
func Page() report.Page {
	name := func(left, right, label int, side string) neuroscreen.Volume {
		return neuroscreen.Volume{Structure: side + "-Hippocampus", Label: label, MM3: float64(left), StandardErrorMM: float64(right)}
	}
	left, right := name(2671, 180, 17, "Left"), name(3402, 190, 53, "Right")
	left.PercentICV, left.ExpectedMM3, left.P5MM3, left.P95MM3 = ptr(.188), ptr(3655.5), ptr(3010.25), ptr(4300.5)
	left.Z, left.ZCI95, left.Percentile = ptr(-2.49), ptr([2]float64{-3.4, -1.6}), ptr(.64)
	right.P5MM3, right.P95MM3, right.Z = ptr(3050.), ptr(4400.), ptr(-.8)
	return report.Page{
		Result: &neuroscreen.Result{
			ScanID: "018f6a52-0000-7000-8000-000000000001", SubjectID: "S-0042", Modality: neuroscreen.T1w,
			Software: neuroscreen.Software{
				Version: "1.2.3", Network: neuroscreen.Asset{Name: "default.weights", SHA256: strings.Repeat("1b", 32)},
				Norms:  []neuroscreen.Asset{{Name: "nomis.csv", SHA256: strings.Repeat("2c", 32)}},
				Models: []neuroscreen.Asset{{Name: "alzheimers.json", SHA256: strings.Repeat("3d", 32)}},
			},
			QC:                    neuroscreen.QC{Verdict: neuroscreen.VerdictReview, Reasons: []neuroscreen.Reason{{Code: "noise", Text: "Noise is 48 % of the contrast."}}},
			IntracranialVolumeMM3: ptr(1421250.5),
			Volumes: []neuroscreen.Volume{
				left, right,
				{Structure: "Brain-Stem", Label: 16, MM3: 21000, StandardErrorMM: 300, LeftOut: true},
				{Structure: "Right-VentralDC", Label: 60, MM3: 3900, StandardErrorMM: 90},
				{Structure: "Right-Inf-Lat-Vent", Label: 44, P5MM3: ptr(150.), P95MM3: ptr(900.)}, // compared with nobody
			},
			Indices: []neuroscreen.Index{
				{Name: "hippocampal_asymmetry_percent", Value: 12.1, CI95: ptr([2]float64{8, 16}), Reference: ptr([2]float64{-1.95, 5.15})},
				{Name: "brain_parenchymal_fraction", Value: .7412},
			},
			Scores: []neuroscreen.Score{
				{Condition: neuroscreen.Alzheimers, Model: "alzheimers-scan", Evidence: neuroscreen.ExternalCohort, LikelihoodRatio: ptr(6.4123), CI95: ptr([2]float64{2.9, 14.2}),
					Prior: ptr(.05), Posterior: ptr(.25232), Flag: neuroscreen.FlagFlagged, IntendedUse: neuroscreen.IntendedUse},
				{Condition: neuroscreen.Alzheimers, Model: "alzheimers-effects", Evidence: neuroscreen.PublishedEffects, LikelihoodRatio: ptr(11.2), CI95: ptr([2]float64{4.1, 30.6}),
					Flag: neuroscreen.FlagNone, IntendedUse: neuroscreen.IntendedUse},
				{Condition: neuroscreen.MesialTemporalSclerosis, Model: "mesial-temporal-sclerosis", Side: ptr("left"), Evidence: neuroscreen.PublishedEffects,
					Flag: neuroscreen.FlagNone, Abstained: ptr("both hippocampi are small"), IntendedUse: neuroscreen.IntendedUse},
			},
		},
		Metadata: neuroscreen.Metadata{
			SubjectID: "S-0042", AgeYears: ptr(74.5), Sex: neuroscreen.Female, ScanDate: "2026-03-14",
			AccessionNumber: "ACC-7", StudyInstanceUID: "1.2.840.113619.2.1", SeriesInstanceUID: "1.2.840.113619.2.1.3",
			FrameOfReferenceUID: "1.2.840.113619.2.1.9", SOPInstanceUIDs: []string{"1.2.840.113619.2.1.3.1", "1.2.840.113619.2.1.3.2"},
		},
		Version: 2, Created: time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC),
		Reading: report.Reading{Norms: []string{"6,909 healthy adults; not calibrated to this network."}, Scores: []report.ScoreInWords{
			{Model: "alzheimers-scan", Title: "Pattern of Alzheimer's disease", Headline: "Flagged.", Text: "Smaller than peers.", Cohort: "188 people aged 60 and over.", Performance: "AUC .79.", Limits: "Not for people under 60."},
			{Model: "alzheimers-effects", Title: "Beside it, alzheimers effects", Text: "They agree."},
			{Model: "mesial-temporal-sclerosis", Title: "Pattern of mesial temporal sclerosis", Headline: "No score."},
		}},
	}
}

// Golden holds what was written against a file, which update writes anew; then
// check.py beside it has to judge it.
func Golden(t *testing.T, path string, got []byte, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes differ from the %d of %s; -update writes it anew, and check.py beside it judges it", len(got), len(want), path)
	}
}

func ptr[T any](v T) *T { return &v }
