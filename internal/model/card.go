package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"neuroscreen"
)

// Threshold is a flag's rule with what it costs, as the card states it.
type Threshold struct {
	Flag            neuroscreen.Flag `json:"flag"`
	Rule            string           `json:"rule"`
	Specificity     float64          `json:"specificity"`
	SpecificityCI95 []float64        `json:"specificity_ci95,omitempty"`
	Sensitivity     float64          `json:"sensitivity,omitempty"`
	SensitivityCI95 []float64        `json:"sensitivity_ci95,omitempty"`
	Basis           string           `json:"basis,omitempty"` // of the two, where no one was counted
}

// Card describes one model: what for, from whom, how good, what never.
type Card struct {
	Name       string                `json:"name"`
	Version    string                `json:"version"`
	Condition  neuroscreen.Condition `json:"condition"`
	Evidence   neuroscreen.Evidence  `json:"evidence"`
	SHA256     string                `json:"sha256"` // of the coefficient file
	AgeYears   [2]float64            `json:"age_years"`
	Thresholds []Threshold           `json:"thresholds"`
	Body       json.RawMessage       `json:"card"`
}

// Cards returns the card of every model, in the order that they are loaded.
func (m *Models) Cards() []Card { return m.cards }

func newCard(a neuroscreen.Asset, file []byte) (Card, error) {
	var d struct {
		header
		Thresholds []Threshold `json:"thresholds"`
	}
	if err := json.Unmarshal(file, &d); err != nil {
		return Card{}, err
	}
	c := Card{Name: d.Name, Version: d.Version, Condition: d.Condition, Evidence: d.Evidence, SHA256: a.SHA256, AgeYears: d.AgeYears, Thresholds: d.Thresholds, Body: d.Card}
	var body map[string]any
	if err := json.Unmarshal(c.Body, &body); err != nil {
		return Card{}, err
	}
	if err := holds(body, "purpose", "trained_on", "method", "performance", "limits", "must_not_be_used_for", "source", "licence", "acknowledgement"); err != nil {
		return Card{}, err
	}
	if err := holds(body["trained_on"], "cohort", "n", "cases", "controls", "age", "sex", "country", "scanner"); err != nil {
		return Card{}, fmt.Errorf("trained_on: %w", err)
	}
	if err := holds(body["performance"], "validation", "subgroups"); err != nil {
		return Card{}, fmt.Errorf("performance: %w", err)
	}
	for _, t := range c.Thresholds {
		if len(t.SpecificityCI95) != 2 || !(t.SpecificityCI95[0] <= t.Specificity && t.Specificity <= t.SpecificityCI95[1]) {
			return Card{}, fmt.Errorf("threshold %s: specificity %g with interval %v", t.Flag, t.Specificity, t.SpecificityCI95)
		}
	}
	return c, nil
}

// holds reports which of the fields an object of the card lacks.
func holds(object any, fields ...string) error {
	m, _ := object.(map[string]any)
	for _, f := range fields {
		if _, ok := m[f]; !ok {
			return fmt.Errorf("the card lacks %q", f)
		}
	}
	return nil
}

// oasis is the source of what the files say came from oasisFile. The files stay
// as they are: their hashes stand in results and in sites' recalibrations.
const (
	oasisFile = "shared tables/oasis1_merged.csv through fit/alzheimers.py"
	oasis     = "OASIS-1 (Marcus et al. 2007, doi:10.1162/jocn.2007.19.9.1498), by fit/alzheimers.py"
)

// Markdown renders the card for people.
func (c Card) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s, version %s\n\n", c.Name, c.Version)
	fmt.Fprintf(&b, "Condition: %s. Evidence: %s. Ages: %g to %g years. Coefficient file: SHA-256 %s.\n\n", words(string(c.Condition)), c.Evidence, c.AgeYears[0], c.AgeYears[1], c.SHA256)
	for _, t := range c.Thresholds {
		fmt.Fprintf(&b, "- Default threshold, %s: %s; specificity %.3f%s", t.Flag, t.Rule, t.Specificity, interval(t.SpecificityCI95))
		if t.Sensitivity > 0 {
			fmt.Fprintf(&b, ", sensitivity %.3f%s", t.Sensitivity, interval(t.SensitivityCI95))
		}
		if t.Basis != "" {
			fmt.Fprintf(&b, " (%s)", t.Basis)
		}
		b.WriteString(".\n")
	}
	var body map[string]any
	d := json.NewDecoder(bytes.NewReader(c.Body))
	d.UseNumber()
	if err := d.Decode(&body); err != nil {
		panic(err) // newCard has read it
	}
	if body["source"] == oasisFile {
		body["source"] = oasis
	}
	for _, k := range []string{"purpose", "trained_on", "method", "performance", "effects", "correlations", "limits", "must_not_be_used_for", "source", "licence", "acknowledgement"} {
		if v, ok := body[k]; ok && v != "" {
			fmt.Fprintf(&b, "\n## %s\n\n", heading(k))
			markdown(&b, v, 0)
		}
		if k == "performance" {
			c.conformal(&b)
		}
	}
	return b.String()
}

// conformal writes how often the sets covered the people behind the model.
func (c Card) conformal(b *strings.Builder) {
	type count struct {
		Covered, People int
		CI95            []float64
	}
	var body struct {
		Sets struct {
			Meaning string
			At      []struct {
				ErrorRate float64 `json:"error_rate"`
				Sets      struct{ Both, One, Neither int }
				Coverage  map[string]count
			}
		} `json:"conformal_sets"`
	}
	if err := json.Unmarshal(c.Body, &body); err != nil {
		panic(err) // newCard has read it
	}
	if len(body.Sets.At) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Conformal sets\n\n%s.\n\n", body.Sets.Meaning)
	for _, at := range body.Sets.At {
		fmt.Fprintf(b, "- error rate %g: %d people get both, %d one, %d neither\n", at.ErrorRate, at.Sets.Both, at.Sets.One, at.Sets.Neither)
		groups := make([]string, 0, len(at.Coverage))
		for g := range at.Coverage {
			groups = append(groups, g)
		}
		sort.Strings(groups)
		for _, g := range groups {
			n := at.Coverage[g]
			fmt.Fprintf(b, "  - %s: %d of %d covered%s\n", g, n.Covered, n.People, interval(n.CI95))
		}
	}
}

func interval(ci []float64) string {
	if len(ci) != 2 {
		return ""
	}
	return fmt.Sprintf(" [%.3f, %.3f]", ci[0], ci[1])
}

func words(key string) string { return strings.ReplaceAll(key, "_", " ") }

func heading(key string) string {
	w := words(key)
	return strings.ToUpper(w[:1]) + w[1:]
}

// markdown writes a JSON value as paragraphs and nested lists.
func markdown(b *strings.Builder, v any, depth int) {
	indent := strings.Repeat("  ", depth)
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			if flat(v[k]) {
				fmt.Fprintf(b, "%s- %s: %s\n", indent, words(k), inline(v[k]))
				continue
			}
			fmt.Fprintf(b, "%s- %s:\n", indent, words(k))
			markdown(b, v[k], depth+1)
		}
	case []any:
		for _, e := range v {
			fmt.Fprintf(b, "%s- %s\n", indent, inline(e))
		}
	default:
		fmt.Fprintf(b, "%s%s\n", indent, inline(v))
	}
}

// flat reports whether a value fits on one line: a scalar, or a list of numbers.
func flat(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return false
	case []any:
		for _, e := range v {
			if _, ok := e.(json.Number); !ok {
				return false
			}
		}
	}
	return true
}

func inline(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = inline(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v)
}
