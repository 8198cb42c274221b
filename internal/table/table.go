// Package table scores people whose volumes were measured elsewhere: rows of a
// CSV with FreeSurfer's names, or FreeSurfer's own aseg.stats.
package table

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"neuroscreen"
	"neuroscreen/internal/anatomy"
	"neuroscreen/internal/model"
	"neuroscreen/internal/norm"
	"neuroscreen/internal/qc"
)

// Row is one person. Missing values are nil, or absent from Volumes.
type Row struct {
	ID        string
	AgeYears  *float64
	Sex       neuroscreen.Sex // "" if missing
	ICVMM3    *float64
	Volumes   map[string]norm.Measured // by FreeSurfer name, in mm3
	NWBV      *float64
	MMSE      *float64
	Segmenter norm.Segmenter
	Line      int               // in the file
	More      map[string]string // cells of the further columns that were asked for, "" where missing
}

// Options of a scoring run. The zero value uses the embedded models,
// no site calibration, and default thresholds and priors.
type Options struct {
	Models    *model.Models
	SiteShift *norm.Shift
	Settings  model.Settings
	// Segmenter applies to rows that name none.
	Segmenter norm.Segmenter
	// ID, AgeYears and Sex complete an aseg.stats file, which does not hold the
	// last two. ID replaces the subject's name in the file.
	ID       string
	AgeYears *float64
	Sex      neuroscreen.Sex
}

// Columns of the output, in order.
func Columns() []string {
	out := []string{"id"}
	for _, c := range neuroscreen.Conditions {
		for _, f := range []string{"lr", "lr_low", "lr_high", "posterior", "flag", "abstained"} {
			out = append(out, string(c)+"_"+f)
		}
	}
	return out
}

// Score reads people from in, scores them and writes one row each to out, in
// the order of the input. in is a CSV (comma, semicolon or tab) or an
// aseg.stats file. Nothing is written if a row is wrong: the error is a
// *neuroscreen.Error that names line and column and says what to do.
func Score(in io.Reader, out io.Writer, o Options) error {
	rows, err := readAny(in, o)
	if err != nil {
		return err
	}
	if o.Models == nil {
		o.Models = model.Default()
	}
	w := csv.NewWriter(out) // rows are complete and checked by now
	if err := w.Write(Columns()); err != nil {
		return err
	}
	for _, r := range rows {
		if err := w.Write(record(r.ID, o.Models.Score(r.Features(o)))); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// readAny reads a CSV or one aseg.stats file.
func readAny(in io.Reader, o Options) ([]Row, error) {
	b := bufio.NewReader(in)
	start, err := b.Peek(1)
	if err == nil && start[0] == '#' { // every FreeSurfer statistics file begins with a comment
		r, err := ReadAsegStats(b)
		if err != nil {
			return nil, err
		}
		if o.ID != "" {
			r.ID = o.ID
		}
		r.AgeYears, r.Sex = o.AgeYears, o.Sex
		if r.AgeYears == nil || r.Sex == "" {
			return nil, invalid("missing-field", "an aseg.stats file holds neither age nor sex: give both beside it")
		}
		return []Row{r}, nil
	}
	return ReadCSV(b)
}

// Features is what the row is scored from.
func (r Row) Features(o Options) model.Features {
	f := model.Features{
		Person:   norm.Person{AgeYears: math.NaN(), Sex: r.Sex, ICVMM3: r.ICVMM3},
		Volumes:  r.Volumes,
		NWBV:     r.NWBV,
		MMSE:     r.MMSE,
		QC:       neuroscreen.VerdictPass, // whoever made the table has looked at the images
		Settings: o.Settings,
	}
	if r.AgeYears != nil {
		f.Person.AgeYears = *r.AgeYears
	}
	f.Calibration = norm.Calibration{Segmenter: r.Segmenter, SiteShift: o.SiteShift}
	if r.Segmenter == norm.Unknown {
		f.Calibration.Segmenter = o.Segmenter
	}
	for _, s := range slices.Sorted(maps.Keys(r.Volumes)) {
		if mm3 := r.Volumes[s].MM3; mm3 > 0 && !qc.Possible(s, mm3) { // 0 is none, which a score says that needs it
			f.Withhold = fmt.Sprintf("the volume %.4g of %s is not that of an adult in mm3 (some tables give ml or cm3)", mm3, s)
			break
		}
	}
	return f
}

// record is one output row.
func record(id string, scores []neuroscreen.Score) []string {
	out := []string{id}
	for _, c := range neuroscreen.Conditions {
		var s neuroscreen.Score
		if n := neuroscreen.Deciding(scores, c); n >= 0 {
			s = scores[n]
		}
		low, high := "", ""
		if s.CI95 != nil {
			low, high = number(&s.CI95[0]), number(&s.CI95[1])
		}
		why := ""
		if s.Abstained != nil {
			why = *s.Abstained
		}
		out = append(out, number(s.LikelihoodRatio), low, high, number(s.Posterior), string(s.Flag), why)
	}
	return out
}

func number(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', -1, 64)
}

func invalid(typ, format string, a ...any) error {
	return neuroscreen.Errorf(neuroscreen.CodeInvalid, typ, format, a...)
}

// limits of a table.
const (
	maxRows    = 1_000_000
	maxColumns = 5_000
)

// ReadCSV reads rows of FreeSurfer volumes. Columns: id, age, sex (F or M),
// EstimatedTotalIntraCranialVol, structures by FreeSurfer name, and if known
// nWBV, MMSE and segmenter (fs5, fs6, fs7, neuroscreen). Upper and lower case
// do not matter; other columns are ignored. Empty, NA and NaN are missing.
func ReadCSV(in io.Reader) ([]Row, error) { return read(in, nil) }

// ReadManifest reads rows as ReadCSV does, keeps the cells of further columns,
// and needs no volume where one of those columns is "scan".
func ReadManifest(in io.Reader, more ...string) ([]Row, error) { return read(in, more) }

func read(in io.Reader, more []string) ([]Row, error) {
	b := bufio.NewReaderSize(in, 1<<16)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" { // spreadsheets begin with it
		_, _ = b.Discard(3)
	}
	c := csv.NewReader(b)
	c.Comma = separator(b)
	c.TrimLeadingSpace = c.Comma != '\t' // it takes an empty cell's tab for a space
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, invalid("empty-table", "the table is empty; its first line must name the columns, such as id,age,sex,EstimatedTotalIntraCranialVol,Left-Hippocampus,Right-Hippocampus")
	} else if err != nil {
		return nil, unreadable(err)
	}
	columns, err := readHeader(header, more)
	if err != nil {
		return nil, err
	}
	var rows []Row
	seen := map[string]int{}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, unreadable(err)
		}
		line, _ := c.FieldPos(0)
		if len(rows) == maxRows {
			return nil, invalid("table-too-long", "the table has over %d rows: split it", maxRows)
		}
		r := Row{Volumes: map[string]norm.Measured{}, Line: line, More: map[string]string{}}
		for i, set := range columns {
			if set == nil {
				continue
			}
			if err := set(&r, strings.TrimSpace(record[i])); err != nil {
				return nil, invalid("invalid-value", "line %d, column %q: %s", line, strings.TrimSpace(header[i]), err)
			}
		}
		if r.ID == "" {
			return nil, invalid("invalid-value", "line %d: the id is empty; every row needs its own", line)
		}
		if before, ok := seen[r.ID]; ok {
			return nil, invalid("duplicate-id", "line %d: the id %q stands in line %d already; a score must belong to one row, so make ids unique (such as subject_session)", line, r.ID, before)
		}
		seen[r.ID] = line
		rows = append(rows, r)
	}
}

// setter puts one cell into a row; its error says what is wrong with the cell.
type setter func(r *Row, cell string) error

// plainColumns by lower-case name.
var plainColumns = map[string]setter{
	"id":                            func(r *Row, s string) error { r.ID = s; return nil },
	"age":                           func(r *Row, s string) error { return setNumber(&r.AgeYears, s) },
	"sex":                           setSex,
	"nwbv":                          func(r *Row, s string) error { return setNumber(&r.NWBV, s) },
	"mmse":                          func(r *Row, s string) error { return setNumber(&r.MMSE, s) },
	"segmenter":                     setSegmenter,
	"estimatedtotalintracranialvol": func(r *Row, s string) error { return setNumber(&r.ICVMM3, s) },
}

// structureNames maps lower-case column names to FreeSurfer's.
var structureNames = func() map[string]string {
	out := map[string]string{}
	for _, s := range norm.Default().Structures() {
		out[strings.ToLower(s)] = s
	}
	for _, s := range anatomy.Structures[1:] {
		out[strings.ToLower(s.Name)] = s.Name
	}
	for _, side := range []string{"Left-", "Right-"} {
		out[strings.ToLower(side+"Thalamus-Proper")] = side + "Thalamus" // FreeSurfer 5 and 6
	}
	return out
}()

func readHeader(header, more []string) ([]setter, error) {
	if len(header) > maxColumns {
		return nil, invalid("table-too-wide", "the table has %d columns; at most %d are read", len(header), maxColumns)
	}
	out := make([]setter, len(header))
	at := map[string]int{}
	volumes, hint := 0, ""
	for i, h := range header {
		name := strings.ToLower(strings.TrimSpace(h))
		if _, sum, ok := strings.Cut(name, ":"); ok { // "BrainSegNotVent:BrainSegVolNotVent"
			name = sum
		}
		key := name
		if set, ok := plainColumns[name]; ok {
			out[i] = set
		} else if slices.Contains(more, name) {
			out[i] = moreSetter(name)
		} else if s, ok := structureNames[name]; ok {
			key = s
			out[i] = volumeSetter(s)
			volumes++
		} else {
			if name == "etiv" || name == "icv" || name == "tiv" {
				hint = fmt.Sprintf(" (column %q is not read, for some tables hold it in cm3: rename it once it is in mm3)", strings.TrimSpace(h))
			}
			continue
		}
		if before, ok := at[key]; ok {
			return nil, invalid("duplicate-column", "columns %d and %d are both %q: remove one", before+1, i+1, strings.TrimSpace(h))
		}
		at[key] = i
	}
	for _, need := range []string{"id", "age", "sex"} {
		if _, ok := at[need]; !ok {
			return nil, invalid("missing-column", "the table has no column %q; its first line must name id, age, sex, EstimatedTotalIntraCranialVol (mm3) and structures by FreeSurfer name", need)
		}
	}
	if _, ok := at["estimatedtotalintracranialvol"]; !ok && hint != "" {
		return nil, invalid("missing-column", "the table has no column EstimatedTotalIntraCranialVol%s", hint)
	}
	if _, scans := at["scan"]; volumes == 0 && !scans {
		return nil, invalid("missing-column", "the table has no volume; name at least Left-Hippocampus and Right-Hippocampus, in mm3")
	}
	return out, nil
}

func moreSetter(name string) setter {
	return func(r *Row, s string) error {
		if !missing[strings.ToLower(s)] {
			r.More[name] = s
		}
		return nil
	}
}

func volumeSetter(structure string) setter {
	return func(r *Row, s string) error {
		var v *float64
		if err := setNumber(&v, s); err != nil || v == nil {
			return err
		}
		if *v < 0 {
			return fmt.Errorf("%g is negative; a volume in mm3 is wanted, or an empty cell if it is not known", *v)
		}
		r.Volumes[structure] = norm.Measured{MM3: *v}
		return nil
	}
}

// missing are the ways in which tables write that a value is not known.
var missing = map[string]bool{"": true, "na": true, "n/a": true, "nan": true, "null": true, "none": true, ".": true}

func setNumber(to **float64, s string) error {
	if missing[strings.ToLower(s)] {
		return nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		if strings.Contains(s, ",") {
			return fmt.Errorf("%q is not a number; use a decimal point and no thousands separator", s)
		}
		return fmt.Errorf("%q is not a number; leave the cell empty if the value is not known", s)
	}
	*to = &v
	return nil
}

func setSex(r *Row, s string) error {
	switch l := strings.ToLower(s); {
	case missing[l]:
	case l == "f" || l == "female":
		r.Sex = neuroscreen.Female
	case l == "m" || l == "male":
		r.Sex = neuroscreen.Male
	default:
		return fmt.Errorf("%q is neither F nor M; leave the cell empty if the sex is not known", s)
	}
	return nil
}

func setSegmenter(r *Row, s string) error {
	l := strings.ToLower(s)
	if missing[l] {
		return nil
	}
	for _, known := range append(append([]norm.Segmenter(nil), norm.Segmenters...), norm.OASIS1) {
		if l == string(known) {
			r.Segmenter = known
			return nil
		}
	}
	return fmt.Errorf("%q is not a known segmenter; use one of %v, or leave the cell empty", s, norm.Segmenters)
}

// separator looks at the first line: comma, unless it has none and a semicolon
// or tab instead.
func separator(b *bufio.Reader) rune {
	line, _ := b.Peek(b.Size()) // what there is, when the table is shorter
	first, _, _ := strings.Cut(string(line), "\n")
	for _, c := range []rune{',', ';', '\t'} {
		if strings.ContainsRune(first, c) {
			return c
		}
	}
	return ','
}

func unreadable(err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		if errors.Is(p.Err, csv.ErrFieldCount) {
			return invalid("ragged-table", "line %d has another number of cells than the first line: an empty value still needs its comma, and text with a comma needs quotes", p.Line)
		}
		return invalid("unreadable-table", "line %d is not CSV: %v", p.Line, p.Err)
	}
	return fmt.Errorf("reading the table: %w", err)
}
