package table

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"

	"neuroscreen/internal/norm"
)

// ReadAsegStats reads FreeSurfer's stats/aseg.stats: structures, the measures
// of the whole head, the subject's name and, where the file tells, FreeSurfer's
// version. Age and sex are not in it.
func ReadAsegStats(in io.Reader) (Row, error) {
	r := Row{Volumes: map[string]norm.Measured{}}
	volumeAt, nameAt := 3, 4 // as every version so far; "# ColHeaders" decides
	s := bufio.NewScanner(in)
	for line := 1; s.Scan(); line++ {
		text := strings.TrimSpace(s.Text())
		if text == "" {
			continue
		}
		comment, ok := strings.CutPrefix(text, "#")
		if !ok {
			f := strings.Fields(text)
			if len(f) <= max(volumeAt, nameAt) {
				return Row{}, invalid("unreadable-aseg", "line %d of the aseg.stats file has too few columns; was it cut short?", line)
			}
			if err := r.setMeasure(f[nameAt], f[volumeAt]); err != nil {
				return Row{}, invalid("unreadable-aseg", "line %d of the aseg.stats file, %s: %v", line, f[nameAt], err)
			}
			continue
		}
		comment = strings.TrimSpace(comment)
		key, rest, _ := strings.Cut(comment, " ")
		switch key {
		case "subjectname":
			r.ID = strings.TrimSpace(rest)
		case "ColHeaders":
			for i, h := range strings.Fields(rest) {
				switch h {
				case "Volume_mm3":
					volumeAt = i
				case "StructName":
					nameAt = i
				}
			}
		case "Measure": // "EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, 1490433.70, mm^3"
			f := strings.Split(rest, ",")
			if len(f) < 5 || strings.TrimSpace(f[len(f)-1]) != "mm^3" {
				continue // surface holes, ratios
			}
			value := strings.TrimSpace(f[len(f)-2])
			for _, name := range f[:2] { // the long name, else the short: they moved between versions
				name = strings.TrimSpace(name)
				if err := r.setMeasure(name, value); err != nil {
					return Row{}, invalid("unreadable-aseg", "line %d of the aseg.stats file, %s: %v", line, name, err)
				}
			}
		}
		if v := versionOf(comment); v != norm.Unknown {
			r.Segmenter = v
		}
	}
	if err := s.Err(); err != nil {
		return Row{}, err
	}
	if len(r.Volumes) == 0 {
		return Row{}, invalid("unreadable-aseg", "no structure was found; send FreeSurfer's stats/aseg.stats, or a CSV whose first line names its columns")
	}
	if r.ID == "" {
		r.ID = "aseg"
	}
	return r, nil
}

// setMeasure takes a structure or a measure of the whole head. Names that the
// norm does not know are passed over.
func (r *Row) setMeasure(name, value string) error {
	l := strings.ToLower(name)
	structure, known := structureNames[l]
	head := l == "estimatedtotalintracranialvol" || l == "etiv" && r.ICVMM3 == nil
	if !known && !head {
		return nil
	}
	if head {
		return setNumber(&r.ICVMM3, value)
	}
	return volumeSetter(structure)(r, value)
}

var (
	release = regexp.MustCompile(`^cvs_version (\d+)\.\d`)                        // "cvs_version 7.4.1"
	cvsYear = regexp.MustCompile(`^cvs_version .*mri_segstats\.c,v \S+ (\d{4})/`) // "cvs_version $Id: mri_segstats.c,v 1.121 2016/05/31 ..."
)

// versionOf reads FreeSurfer's version from a comment line: the release of the
// program (7), or its CVS date (2016 for 6.0, before that 5).
func versionOf(comment string) norm.Segmenter {
	if m := release.FindStringSubmatch(comment); m != nil {
		if m[1] == "7" {
			return norm.FreeSurfer7
		}
	} else if m := cvsYear.FindStringSubmatch(comment); m != nil {
		if year, _ := strconv.Atoi(m[1]); year >= 2015 {
			return norm.FreeSurfer6
		}
		return norm.FreeSurfer5
	}
	return norm.Unknown
}
