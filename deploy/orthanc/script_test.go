package orthanc

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script runs code with neuroscreen.py as n and input as given; its output is
// JSON for out.
func script(t *testing.T, code string, input, out any, environment ...string) {
	t.Helper()
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip("Python is not here; scripts/setup.sh fit installs it")
	}
	given, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", "import json, sys; sys.path.insert(0, '.'); import neuroscreen as n; given = json.load(sys.stdin)\n"+code)
	cmd.Env = append(append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1"), environment...)
	var errors strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(given)), &errors
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errors)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
}

// TestWhichSeries: vendors' own names of T1 volumes are posted, what their
// protocols store beside them is not, and contrast agents are told of.
func TestWhichSeries(t *testing.T) {
	const (
		original   = `ORIGINAL\PRIMARY\M\ND\NORM`
		another    = "described as another series"
		longEcho   = "echo time"
		posted     = ""
		contrasted = "contrast agent"
	)
	tests := []struct {
		imageType, description, sequence string
		echo                             float64
		want                             string
	}{
		// Siemens
		{original, "t1_mpr_sag_p2_iso", "*tfl3d1_ns", 2.98, posted},
		{original, "t1_mpr_ns_sag_p2_iso", "*tfl3d1_ns", 2.98, posted},
		{original, "T1_MPR", "*tfl3d1", 2.98, posted},
		{original, "MPR_SAG_ISO", "*tfl3d1_16ns", 2.98, posted},
		{original, "t1_mprage_sag_p2_iso", "*tfl3d1_16ns", 2.98, posted},
		{original, "t1_space_sag_p2_iso", "*spc_98ns", 22, posted},
		{original, "t1_vibe_tra_iso", "*fl3d1_ns", 2.5, posted},
		{original, "t1_mpr_sag_p2_iso_KM", "*tfl3d1_ns", 2.98, contrasted},
		{`DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL`, "t1_mpr_sag_p2_iso_MPR_Tra", "*tfl3d1_ns", 2.98, "derived"},
		{`ORIGINAL\PRIMARY\MPR\NORM\DIS3D`, "t1_mpr_sag_p2_iso", "*tfl3d1_ns", 2.98, "image type"},
		{original, "MPR Range[1]", "", 2.98, another},
		{original, "AAHead_Scout_64ch-head-coil", "*fl3d1_ns", 1.3, another},
		{original, "localizer", "*fl2d1", 3, another},
		{original, "t2_space_sag_p2_iso", "*spcR_284ns", 409, another},
		{original, "t2_space_dark-fluid_sag_p2_iso", "*spcir_278ns", 388, another},
		{original, "Mag_Images", "*swi3d1r", 7.5, another},
		// GE
		{`ORIGINAL\PRIMARY\OTHER`, "Ax T1 BRAVO ASSET", "", 3.2, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "Sag T1 BRAVO", "", 3.2, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "SAG IR-FSPGR", "", 3, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "Sag T1 CUBE", "", 16, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "3D MP-RAGE", "", 3, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "Ax T1 BRAVO ASSET +C", "", 3.2, contrasted},
		{`ORIGINAL\PRIMARY\OTHER`, "SAG T1 BRAVO GAD", "", 3.2, contrasted},
		{`ORIGINAL\PRIMARY\OTHER`, "AX T1 FSPGR C+", "", 3.2, contrasted},
		{`DERIVED\SECONDARY\REFORMATTED\AVERAGE`, "Ax T1 BRAVO ASSET", "", 3.2, "derived"},
		{`ORIGINAL\PRIMARY\OTHER`, "Calibration Scan", "", 1.7, another},
		{`ORIGINAL\PRIMARY\OTHER`, "ASSET calibration", "", 1.7, another},
		{`ORIGINAL\PRIMARY\OTHER`, "Asset Cal", "", 1.7, another},
		{`ORIGINAL\PRIMARY\OTHER`, "3-plane loc", "", 1.7, another},
		{`ORIGINAL\PRIMARY\OTHER`, "Sag CUBE T2 ASSET", "", 90, another},
		{`ORIGINAL\PRIMARY\OTHER`, "Sag T1 CUBE FLAIR", "", 16, another},
		{`ORIGINAL\PRIMARY\OTHER`, "Ax SWAN", "", 24, longEcho},
		// Philips
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "sT1W_3D_TFE", "", 3.7, posted},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "WIP sT1W_3D_FFE SENSE", "", 4.6, posted},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "T1W_3D_TFE_SENSE", "", 3.7, posted},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "MPRAGE SENSE2", "", 3.7, posted},
		{`ORIGINAL\PRIMARY\M_SE\M\SE`, "sT1W_3D_TSE", "", 20, posted},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "sT1W_3D_TFE Gd", "", 3.7, contrasted},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "CoilSurveyScan", "", .7, another},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "SenseRefScan", "", .7, another},
		{`ORIGINAL\PRIMARY\M_SE\M\SE`, "sT2W_FLAIR", "", 120, another},
		{`ORIGINAL\PRIMARY\M_SE\M\SE`, "T2W_3D_TSE", "", 250, another},
		{`ORIGINAL\PRIMARY\M_FFE\M\FFE`, "SWIp", "", 7, another},
		{`ORIGINAL\PRIMARY\PHASE MAP\P\FFE`, "sT1W_3D_FFE", "", 4.6, "image type"},
		// Canon
		{`ORIGINAL\PRIMARY\OTHER`, "SAG 3D MPRAGE", "", 3.5, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "3D T1 FFE", "", 5.5, posted},
		{`ORIGINAL\PRIMARY\OTHER`, "3D T1 FFE CE", "", 5.5, contrasted},
		{`ORIGINAL\PRIMARY\OTHER`, "Locator", "", 5, another},
		{`ORIGINAL\PRIMARY\OTHER`, "3D FLAIR SAG", "", 400, another},
		{`ORIGINAL\PRIMARY\OTHER`, "FSBB", "", 20, longEcho},
	}
	given := make([]map[string]any, len(tests))
	for i, tt := range tests {
		given[i] = map[string]any{"Modality": "MR", "MRAcquisitionType": "3D", "BodyPartExamined": "BRAIN", "ImageType": tt.imageType,
			"SeriesDescription": tt.description, "SequenceName": tt.sequence, "EchoTime": tt.echo}
	}
	var became []string
	script(t, `
def became(tags):
    try:
        n.is_t1(tags, 176)
    except n.LeftAlone as e:
        return str(e)
    return "contrast agent" if n.metadata(tags, []).get("contrast_agent") else ""
print(json.dumps([became(tags) for tags in given]))`, given, &became)
	for i, tt := range tests {
		if got := became[i]; !strings.HasPrefix(got, tt.want) || tt.want == posted && got != posted {
			t.Errorf("%s, %s: %q, want %q", tt.description, tt.imageType, got, tt.want)
		}
	}
}

// TestContrastAgents: a scan is refused for an agent that its tags tell of, and
// not for one that they say was not given.
func TestContrastAgents(t *testing.T) {
	type tags struct{ SeriesDescription, ProtocolName, ContrastBolusAgent string }
	tests := map[bool][]tags{true: {
		{ContrastBolusAgent: "Gadobutrol"}, {"T1 PRE", "", "GADAVIST"},
		{"SAG T1 MPRAGE", "BRAIN W CONTRAST", ""}, {"T1 post contrast", "BRAIN W/O CONTRAST", ""}, {"T1 KM", "Kopf nativ", ""},
	}, false: {
		{}, {"SAG T1 MPRAGE", "HEAD", ""}, {ContrastBolusAgent: "NONE"}, {ContrastBolusAgent: "no contrast"}, {ContrastBolusAgent: "W/O"},
		{"SAG T1 MPRAGE W/O CONTRAST", "BRAIN W CONTRAST", ""}, {"T1_MPRAGE_PRE_CONTRAST", "BRAIN W/WO CONTRAST", ""},
		{"SAG T1 MPRAGE", "BRAIN W WO CONTRAST", ""}, {"SAG T1 MPRAGE", "Brain with and without contrast", ""}, {"SAG T1 MPRAGE", "BRAIN W/O & W/ CONTRAST", ""},
		{"t1_mprage", "Kopf mit und ohne KM", ""}, {"t1_mprage", "T1 pre/post Gd", ""}, {"t1_post_process", "t1_post_process", ""},
	}}
	for _, d := range []string{
		"t1 +C", "t1+c", "Ax T1 BRAVO +C", "AX T1 FSPGR C+", "T1 POST GAD", "T1 post contrast", "T1 post-contrast axial", "t1_post_contrast_sag", "T1 postcontrast", "T1 KM", "T1-KM",
		"T1 m. KM", "T1 nach KM", "T1_GD", "T1/GD", "T1GD", "T1+Gd", "T1 CE", "T1 w/ contrast", "T1 with contrast", "T1 Gadovist", "T1 Kontrastmittel",
		"SAG T1 MPRAGE POST", "T1_POST_SAG", "POST T1", "AX T1 POST FS",
	} {
		tests[true] = append(tests[true], tags{SeriesDescription: d})
	}
	for _, d := range []string{
		"SAG T1 MPRAGE W/O CONTRAST", "T1 W / O CONTRAST", "SAG T1 MPRAGE W/O", "T1 wo contrast", "T1 without IV contrast", "T1 w/o gd contrast", "T1-no-contrast", "T1 non-contrast",
		"T1 noncontrast", "T1 NON-CE", "T1_MPRAGE_PRE_CONTRAST", "T1 pre-Gd", "T1 precontrast", "T1_pre", "AX T1 PRE FS", "3D T1 ohne KM", "T1 o. KM", "T1 vor KM", "T1 sans contraste",
		"t1_post_process", "T1 post op", "T1 post-op ax", "T1 post traumatic", "T1 posterior fossa", "T1 AX + COR",
	} {
		tests[false] = append(tests[false], tags{SeriesDescription: d})
	}
	for want, list := range tests {
		var told []bool
		script(t, `print(json.dumps([n.metadata(tags, []).get("contrast_agent", False) for tags in given]))`, list, &told)
		for i, got := range told {
			if got != want {
				t.Errorf("%+v: contrast agent %v", list[i], got)
			}
		}
	}
}

// TestConverterHangs: a series on which dcm2niix never ends is told of once, and
// the worker goes on to the next.
func TestConverterHangs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dcm2niix"), []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var said [2]string
	script(t, `
n.CONVERT_SECONDS = .1
try:
    n.convert(given)
except n.Impossible as e:
    print(json.dumps([str(e), e.code]))`, dir, &said, "PATH="+dir+":"+os.Getenv("PATH"))
	if said != [2]string{"dcm2niix made no image of it in 0.1 s", "no-image"} {
		t.Errorf("said %q", said)
	}
}
