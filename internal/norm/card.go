package norm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Card describes the norms for people, as the risk models' cards do.
func (n *Norms) Card() string {
	var adjusted, agesOnly []string
	for _, s := range n.Structures() {
		if n.AdjustsForSex(s) {
			adjusted = append(adjusted, s)
		} else {
			agesOnly = append(agesOnly, s)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# norms: NOMIS

Files: %s.

## Purpose

What healthy adults have, for %d structures and sums: the expected volume at an age and head size, the 5 to 95 %% interval, z and percentile.

## Made from

NOMIS (Potvin, Dieumegarde and Duchesne 2021, doi:10.1101/2021.01.25.428063; BSD-3-Clause): healthy adults of %g to %g years measured with FreeSurfer 6.0. Head sizes are
taken as they are from %.1f to %.1f l and as the nearest of these beyond. The scanner of reference is a Siemens of 3 T; how many people, of which
countries and scanners, stands in the paper and not with its coefficients. Ventricles but the fourth are modelled as log10(mm3). The spread is the same at all ages.

## What is adjusted for

- Age, head size and sex: %s.
- Age and head size only, because the published models of these lost their term for sex: %s. Sex moves these expected volumes only by its interactions
  with age and head size, which are nothing at %.0f years and %.1f l.
- Scanner, field strength and noise: never. A site's own control shift, from %d healthy people, stands for them.

## What widens an interval

- the measurement's own standard error;
- the spread between two scans of one person (published test-retest figures; 3 %% where none was found, an assumption);
- the spread between 82 sites (58,836 people of 2 to 100 years; Rutherford 2022, doi:10.7554/eLife.72904), until the site has a control shift, then that shift's error: of the mean of its controls, and of what shrinking it leaves;
- the spread between segmenters, where the site has no control shift either and nobody was measured with this one.

## Segmenters

`, n.files(), len(n.models), MinAge, MaxAge, MinTIV/1e6, MaxTIV/1e6, strings.Join(adjusted, ", "), strings.Join(agesOnly, ", "), nomisMeanAge, nomisMeanTIV/1e6, minForSite)
	for _, seg := range slices.Sorted(maps.Keys(n.shifts)) {
		s := n.shifts[seg]
		fmt.Fprintf(&b, "- %s: shift %s, %d structures: %s.\n", seg, s.id(), len(s.Structures), s.Source)
	}
	fmt.Fprintf(&b, `- fs6: the norm's own.
- Of a shift's mean offset is taken out what it is worth beside how far segmenters lie off at all (kept in the shift, n/(n+10) where it holds none).
- any other: no shift; its own offset is in every z.

A result says so (segmenter-not-calibrated) where no healthy people were measured with the segmenter itself, and %.2f SD of the norm are added to the spread:
the root mean square of FreeSurfer 7's offsets from the norm over the structures of the label map.

## Limits

- The spread is the same at all ages, where that of other norms rises with age: in old age z may be too large.
- Cortex and white matter of the cerebrum are known from FreeSurfer's surfaces only, and CSF not at all: the same structures of a label map are given
  without z until a segmenter's shift holds them.
- The norm followed no one over time: its slope over age is that between people.
- Of 32 structures, 1 in 20 lies below the 5th and 1 in 20 above the 95th percentile in healthy people.

## Must not be used for

- anyone under 18
- comparing volumes of different segmenters
- deciding whether a person has a disease, or ruling it out
`, n.segmenterRatio)
	return b.String()
}

func (n *Norms) files() string {
	var names []string
	for _, a := range n.assets {
		names = append(names, fmt.Sprintf("%s (SHA-256 %.12s)", a.Name, a.SHA256))
	}
	return strings.Join(names, ", ")
}

// SHA256 stands for all files of the norms: of their names and hashes in order.
func (n *Norms) SHA256() string {
	var b strings.Builder
	for _, a := range n.assets {
		fmt.Fprintln(&b, a.Name, a.SHA256)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:])
}
