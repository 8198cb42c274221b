package words

import (
	"testing"

	"neuroscreen"
)

func ptr[T any](v T) *T { return &v }

func TestWhy(t *testing.T) {
	for want, s := range map[string]neuroscreen.Score{
		"No score: under 60 years": {Abstained: ptr("under 60 years")},
		"Right hippocampus z −2.8, left amygdala z +0.4": {Condition: neuroscreen.Alzheimers, Contributions: []neuroscreen.Contribution{
			{Feature: "age_years", Value: 74, LogLR: 9}, {Feature: "Left-Thalamus", Z: ptr(0.1), LogLR: -0.1},
			{Feature: "Left-Amygdala", Z: ptr(0.4), LogLR: -0.5}, {Feature: "Right-Hippocampus", Z: ptr(-2.81), LogLR: 1.2}}},
		"Left hippocampus smaller, asymmetry +12.3 %, z −2.4": {Condition: neuroscreen.MesialTemporalSclerosis, Side: ptr("left"), Contributions: []neuroscreen.Contribution{
			{Feature: "hippocampal_asymmetry_percent", Value: 12.34, Z: ptr(3.0)}, {Feature: "Left-Hippocampus", Value: 2400, Z: ptr(-2.4)}}},
		"Left thalamus z 0.0": {Condition: neuroscreen.Parkinsons, Contributions: []neuroscreen.Contribution{{Feature: "Left-Thalamus", Z: ptr(-0.02), LogLR: 1}}},
		"Asymmetry −1.0 %":    {Condition: neuroscreen.MesialTemporalSclerosis, Contributions: []neuroscreen.Contribution{{Feature: "hippocampal_asymmetry_percent", Value: -1}}},
		"":                    {Condition: neuroscreen.Parkinsons},
	} {
		if got := Why(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStructure(t *testing.T) {
	for name, want := range map[string]string{
		"Left-Inf-Lat-Vent": "Left inferior lateral ventricle", "Right-VentralDC": "Right ventral diencephalon", "Brain-Stem": "Brain stem",
		"CSF": "CSF outside the ventricles", "3rd-Ventricle": "3rd ventricle", "Hippocampus": "Hippocampus", "": "",
	} {
		if got := Structure(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
