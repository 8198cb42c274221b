package qc

import (
	"path/filepath"
	"testing"

	"neuroscreen/internal/nifti"
	"neuroscreen/internal/testdata"
)

// What intake makes of real files; "" passes on to the network, whose gates
// come after.
func TestIntakeOnSharedScans(t *testing.T) {
	tests := []struct{ file, want string }{
		{"t1/chris_t1.nii.gz", ""},
		{"t1/t1_crop.nii.gz", ""},
		{"t1/ds000011_sub-01_T1w.nii.gz", ""},
		{"t1/ds000011_sub-02_T1w.nii.gz", ""},
		{"t1/ds002748_sub-01_T1w.nii.gz", ""},
		{"t1/ds002748_sub-03_T1w.nii.gz", ""},
		{"t1/malf_1000_SS.nii.gz", ""},
		{"t1/malf_1014_SS.nii.gz", ""},
		{"t1/malf_1000_glm.nii.gz", NotAnIntensityImage},
		{"t1/bert_aseg.nii.gz", NotAnIntensityImage},

		{"refuse/BRAINIX_T1.nii.gz", ThickSlices},
		{"refuse/balls1_phantom_T1.nii.gz", ThickSlices},
		{"refuse/heart_mask.nii.gz", ImplausibleGeometry},
		{"refuse/niivue_CT_AVM.nii.gz", EmptyImage},
		{"refuse/niivue_FA.nii.gz", ""},
		{"refuse/niivue_FLAIR.nii.gz", ""},
		{"refuse/niivue_Iguana.nii.gz", FieldOfViewCut},
		{"refuse/niivue_M2208_T2w.nii.gz", ""},
		{"refuse/niivue_inia19-t1-brain.nii.gz", FieldOfViewCut},
		{"refuse/sct_spine_t1w.nii.gz", FieldOfViewCut},

		{"odd/nibabel_standard.nii.gz", FieldOfViewCut},
		{"odd/nrjs_5D_zeros.nii.gz", Not3D},
		{"odd/nrjs_with_extension.nii.gz", NotAnIntensityImage},
		{"odd/niivue_nifti_space__LAS.nii.gz", ""},
		{"odd/niivue_nifti_space__PIR.nii.gz", ""},
		{"odd/cornerstone_little.nii.gz", ThickSlices},
	}
	for _, test := range tests {
		t.Run(filepath.Base(test.file), func(t *testing.T) {
			img, err := nifti.ReadFile(testdata.Shared(t, "scans", filepath.FromSlash(test.file)))
			if err != nil {
				t.Fatal(err)
			}
			err = CheckHeader(&img.Header, adult)
			if err == nil {
				err = CheckVoxels(img)
			}
			var want []string
			if test.want != "" {
				want = []string{test.want}
			}
			if got := codes(err); len(got) == 0 && want != nil || len(got) > 0 && (want == nil || got[0] != want[0]) {
				t.Errorf("refused for %v, want %q (%v)", got, test.want, err)
			}
		})
	}
}
