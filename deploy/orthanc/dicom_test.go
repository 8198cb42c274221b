package orthanc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/google/uuid"

	"neuroscreen/internal/nifti"
)

// tag of a DICOM element, group in the upper half.
type tag uint32

const (
	imageType   tag = 0x00080008
	modality    tag = 0x00080060
	description tag = 0x0008103e
	patientID   tag = 0x00100020
	birthDate   tag = 0x00100030
	patientSex  tag = 0x00100040
	patientAge  tag = 0x00101010
	agent       tag = 0x00180010
	bodyPart    tag = 0x00180015
	sequence    tag = 0x00180024
	echoTime    tag = 0x00180081
	pixelData   tag = 0x7fe00010
	seriesUID       = "1.2.826.0.1.3680043.10.999.1.2"
	studyUID        = "1.2.826.0.1.3680043.10.999.1"
	frameUID        = "1.2.826.0.1.3680043.10.999.3"
	mrStorage       = "1.2.840.10008.5.1.4.1.1.4"
)

// element is a value with its representation.
type element struct{ vr, value string }

// series writes an image as a scanner stores it: one file per sagittal slice
// (along the image's first axis), rows to the back, against its second axis, and
// columns to the feet, against the third; places in DICOM's LPS+ millimetres. With changes it is a series
// of its own.
func series(m *nifti.Image, changes map[tag]string) [][]byte {
	own := seriesUID
	if changes != nil || m.Shape[0] < 100 {
		id := uuid.New()
		own = fmt.Sprintf("2.25.%d", binary.BigEndian.Uint64(id[:8]))
	}
	axis := func(n int) (v [3]float64, length float64) {
		v = [3]float64{m.Affine[0][n], m.Affine[1][n], -m.Affine[2][n]}
		length = math.Sqrt(v[0]*v[0] + v[1]*v[1] + v[2]*v[2])
		for i := range v {
			v[i] /= length
		}
		return v, length
	}
	_, between := axis(0)
	alongRow, columnSpacing := axis(1)
	alongColumn, rowSpacing := axis(2)
	var files [][]byte
	for k := range m.Shape[0] {
		at := apply(m.Affine, [3]float64{float64(k), float64(m.Shape[1] - 1), float64(m.Shape[2] - 1)})
		e := map[tag]element{
			imageType: {"CS", `ORIGINAL\PRIMARY\M\ND\NORM`}, 0x00080016: {"UI", mrStorage}, 0x00080018: {"UI", fmt.Sprintf("%s.%d", own, k+1)},
			0x00080020: {"DA", "20240701"}, 0x00080021: {"DA", "20240701"}, 0x00080022: {"DA", "20240701"}, 0x00080030: {"TM", "101112"},
			0x00080050: {"SH", "ACC-9"}, modality: {"CS", "MR"}, 0x00080070: {"LO", "ACME"}, 0x00080080: {"LO", "St. Nowhere"},
			description: {"LO", "t1_mprage_sag"}, 0x00081090: {"LO", "Magnet 3"},
			0x00100010: {"PN", "Doe^John"}, patientID: {"LO", "MRN 7"}, birthDate: {"DA", "19790101"}, patientSex: {"CS", "M"}, patientAge: {"AS", "045Y"},
			bodyPart: {"CS", "BRAIN"}, 0x00180020: {"CS", "GR"}, 0x00180021: {"CS", "MP"}, 0x00180023: {"CS", "3D"}, sequence: {"SH", "*tfl3d1_16"},
			0x00180050: {"DS", number(between)}, 0x00180080: {"DS", "2300"}, echoTime: {"DS", "2.98"}, 0x00180082: {"DS", "900"},
			0x00180087: {"DS", "3"}, 0x00180088: {"DS", number(between)}, 0x00181314: {"DS", "9"},
			0x0020000d: {"UI", studyUID}, 0x0020000e: {"UI", own}, 0x00200010: {"SH", "1"}, 0x00200011: {"IS", "3"}, 0x00200013: {"IS", fmt.Sprint(k + 1)},
			0x00200032: {"DS", numbers(-at[0], -at[1], at[2])}, 0x00200037: {"DS", numbers(append(alongRow[:], alongColumn[:]...)...)}, 0x00200052: {"UI", frameUID},
			0x00280002: short(1), 0x00280004: {"CS", "MONOCHROME2"}, 0x00280010: short(m.Shape[2]), 0x00280011: short(m.Shape[1]),
			0x00280030: {"DS", numbers(rowSpacing, columnSpacing)}, 0x00280100: short(16), 0x00280101: short(16), 0x00280102: short(15), 0x00280103: short(0),
			pixelData: {"OW", pixels(m, k)},
		}
		for t, v := range changes {
			old := e[t]
			if old.vr == "" {
				old.vr = "LO"
			}
			e[t] = element{old.vr, v}
		}
		files = append(files, file(e))
	}
	return files
}

func number(v float64) string { return fmt.Sprintf("%.9g", v) }

func numbers(v ...float64) string {
	var b bytes.Buffer
	for n, x := range v {
		if n > 0 {
			b.WriteByte('\\')
		}
		b.WriteString(number(x))
	}
	return b.String()
}

func short(n int) element {
	return element{"US", string(binary.LittleEndian.AppendUint16(nil, uint16(n)))}
}

func pixels(m *nifti.Image, slice int) string {
	s := m.Shape
	b := make([]byte, 0, 2*s[1]*s[2])
	for k := s[2] - 1; k >= 0; k-- {
		for j := s[1] - 1; j >= 0; j-- {
			b = binary.LittleEndian.AppendUint16(b, uint16(math.Round(float64(m.Data[slice+s[0]*(j+s[1]*k)]))))
		}
	}
	return string(b)
}

// file in explicit little endian, with its preamble.
func file(elements map[tag]element) []byte {
	meta := encode(map[tag]element{
		0x00020001: {"OB", "\x00\x01"}, 0x00020002: {"UI", mrStorage}, 0x00020003: {"UI", elements[0x00080018].value},
		0x00020010: {"UI", "1.2.840.10008.1.2.1"}, 0x00020012: {"UI", "1.2.826.0.1.3680043.10.999"},
	})
	var b bytes.Buffer
	b.Write(make([]byte, 128))
	b.WriteString("DICM")
	b.Write(encode(map[tag]element{0x00020000: {"UL", string(binary.LittleEndian.AppendUint32(nil, uint32(len(meta))))}}))
	b.Write(meta)
	b.Write(encode(elements))
	return b.Bytes()
}

func encode(elements map[tag]element) []byte {
	var b []byte
	for _, t := range slices.Sorted(maps.Keys(elements)) {
		e := elements[t]
		v := e.value
		if len(v)%2 == 1 {
			v += map[bool]string{true: "\x00", false: " "}[e.vr == "UI" || e.vr == "OB"]
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(t>>16))
		b = binary.LittleEndian.AppendUint16(b, uint16(t))
		b = append(b, e.vr...)
		if e.vr == "OW" || e.vr == "OB" {
			b = append(b, 0, 0)
			b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		} else {
			b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
		}
		b = append(b, v...)
	}
	return b
}
