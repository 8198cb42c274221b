// Package anatomy names the structures that the product measures: network
// class, FreeSurfer label and name, tissue, side, SNOMED CT code and display colour.
//
// Labels and names are FreeSurfer's (FreeSurferColorLUT.txt); SNOMED CT codes
// are those of DICOM's CID 7140 and pydicom's SR dictionary.
package anatomy

import "strings"

// Class is the network's output class: 0 is background, 1 to NumClasses-1 are
// Structures in ascending order of their FreeSurfer label.
type Class uint8

// NumClasses counts the classes, background included.
const NumClasses = 33

// Side of the body that a structure lies on.
type Side string

const (
	Midline Side = ""
	Left    Side = "left"
	Right   Side = "right"
)

// Tissue that a structure consists of, mostly.
type Tissue uint8

const (
	Outside Tissue = iota
	Fluid          // ventricles, and what surrounds the brain
	White          // white matter
	Cortex
	Compact // deep grey matter, hippocampus, amygdala, brain stem: bodies of one piece
)

// Structure is one row of the table.
type Structure struct {
	Class  Class
	Label  int    // FreeSurfer aseg label
	Name   string // FreeSurfer name
	Tissue Tissue
	Side   Side
	Mirror Class  // the same structure of the other side; itself on the midline
	SCT    string // SNOMED CT concept, without laterality
	Colour [3]uint8
}

// Structures is indexed by Class.
var Structures = [NumClasses]Structure{
	{0, 0, "Unknown", Outside, Midline, 0, "", [3]uint8{0, 0, 0}},
	{1, 2, "Left-Cerebral-White-Matter", White, Left, 19, "68523003", [3]uint8{245, 245, 245}},
	{2, 3, "Left-Cerebral-Cortex", Cortex, Left, 20, "40146001", [3]uint8{205, 62, 78}},
	{3, 4, "Left-Lateral-Ventricle", Fluid, Left, 21, "66720007", [3]uint8{120, 18, 134}},
	{4, 5, "Left-Inf-Lat-Vent", Fluid, Left, 22, "53118009", [3]uint8{196, 58, 250}},
	{5, 7, "Left-Cerebellum-White-Matter", White, Left, 23, "33060004", [3]uint8{220, 248, 164}},
	{6, 8, "Left-Cerebellum-Cortex", Cortex, Left, 24, "25991003", [3]uint8{230, 148, 34}},
	{7, 10, "Left-Thalamus", Compact, Left, 25, "119406000", [3]uint8{0, 118, 14}},
	{8, 11, "Left-Caudate", Compact, Left, 26, "11000004", [3]uint8{122, 186, 220}},
	{9, 12, "Left-Putamen", Compact, Left, 27, "89278009", [3]uint8{236, 13, 176}},
	{10, 13, "Left-Pallidum", Compact, Left, 28, "14738005", [3]uint8{12, 48, 255}},
	{11, 14, "3rd-Ventricle", Fluid, Midline, 11, "49841001", [3]uint8{204, 182, 142}},
	{12, 15, "4th-Ventricle", Fluid, Midline, 12, "35918002", [3]uint8{42, 204, 164}},
	{13, 16, "Brain-Stem", Compact, Midline, 13, "119238007", [3]uint8{119, 159, 176}},
	{14, 17, "Left-Hippocampus", Compact, Left, 29, "5366008", [3]uint8{220, 216, 20}},
	{15, 18, "Left-Amygdala", Compact, Left, 30, "4958002", [3]uint8{103, 255, 255}},
	{16, 24, "CSF", Fluid, Midline, 16, "65216001", [3]uint8{60, 60, 60}},
	{17, 26, "Left-Accumbens-area", Compact, Left, 31, "427667007", [3]uint8{255, 165, 0}},
	{18, 28, "Left-VentralDC", Compact, Left, 32, "110700", [3]uint8{165, 42, 42}},
	{19, 41, "Right-Cerebral-White-Matter", White, Right, 1, "68523003", [3]uint8{245, 245, 245}},
	{20, 42, "Right-Cerebral-Cortex", Cortex, Right, 2, "40146001", [3]uint8{205, 62, 78}},
	{21, 43, "Right-Lateral-Ventricle", Fluid, Right, 3, "66720007", [3]uint8{120, 18, 134}},
	{22, 44, "Right-Inf-Lat-Vent", Fluid, Right, 4, "53118009", [3]uint8{196, 58, 250}},
	{23, 46, "Right-Cerebellum-White-Matter", White, Right, 5, "33060004", [3]uint8{220, 248, 164}},
	{24, 47, "Right-Cerebellum-Cortex", Cortex, Right, 6, "25991003", [3]uint8{230, 148, 34}},
	{25, 49, "Right-Thalamus", Compact, Right, 7, "119406000", [3]uint8{0, 118, 14}},
	{26, 50, "Right-Caudate", Compact, Right, 8, "11000004", [3]uint8{122, 186, 220}},
	{27, 51, "Right-Putamen", Compact, Right, 9, "89278009", [3]uint8{236, 13, 176}},
	{28, 52, "Right-Pallidum", Compact, Right, 10, "14738005", [3]uint8{12, 48, 255}},
	{29, 53, "Right-Hippocampus", Compact, Right, 14, "5366008", [3]uint8{220, 216, 20}},
	{30, 54, "Right-Amygdala", Compact, Right, 15, "4958002", [3]uint8{103, 255, 255}},
	{31, 58, "Right-Accumbens-area", Compact, Right, 17, "427667007", [3]uint8{255, 165, 0}},
	{32, 60, "Right-VentralDC", Compact, Right, 18, "110700", [3]uint8{165, 42, 42}},
}

// Bare is a structure's name without the side.
func Bare(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, "Left-"), "Right-")
}

// VentralDC stands in SCT where SNOMED CT has no concept: it is DICOM's own code.
const VentralDC = "110700"

// CSF is other intracranial cerebrospinal fluid: inside the head, outside the
// brain and its ventricles.
const CSF Class = 16

// Brain lists the structures of the brain: all but background and CSF.
var Brain = func() (all []Class) {
	for _, s := range Structures {
		if s.Class != 0 && s.Class != CSF {
			all = append(all, s.Class)
		}
	}
	return all
}()

// Inner lists the compact structures inside a hemisphere, of the left side: deep
// nuclei, hippocampus and amygdala.
var Inner = []Class{7, 8, 9, 10, 14, 15, 17}

// Half lists all structures of the left side.
var Half = []Class{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 17, 18}

// HalfMiddleMM leads from the centre of mass of the left side's structures to
// the middle of the box that holds them and the midline, to the right, front
// and top: in heads of all sizes they reach 40 mm to the left of that centre,
// 29 to the right, 75 and more to the back, 86 to the front, 69 down and 60 up.
var HalfMiddleMM = [3]float64{-6, 5, -5}

// ClassOf is the class of each label of a volume, 0 of those of no structure.
var ClassOf [256]Class

var byName = map[string]Class{}

func init() {
	for _, s := range Structures {
		ClassOf[s.Label] = s.Class
		byName[s.Name] = s.Class
	}
	// FreeSurfer 5 and 6 wrote "-Proper"; the structure is the same.
	byName["Left-Thalamus-Proper"] = byName["Left-Thalamus"]
	byName["Right-Thalamus-Proper"] = byName["Right-Thalamus"]
}

// ByLabel returns the structure with a FreeSurfer label.
func ByLabel(label int) (Structure, bool) {
	if label < 0 || label >= len(ClassOf) {
		return Structure{}, false
	}
	s := Structures[ClassOf[label]]
	return s, s.Label == label
}

// ByName returns the structure with a FreeSurfer name.
func ByName(name string) (Structure, bool) {
	c, ok := byName[name]
	return Structures[c], ok
}
