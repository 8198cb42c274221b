"""Judges seg.dcm and sr.dcm by highdicom, and by dciodvfy and dsrdump where they
are installed (Debian: dicom3tools, dcmtk):
python3 -m pip install highdicom==0.28.2 nibabel==5.4.2; python3 check.py"""
import pathlib
import shutil
import subprocess

import highdicom
import nibabel
import numpy
from pydicom.sr.codedict import codes

here = pathlib.Path(__file__).parent
seg = highdicom.seg.segread(here / "seg.dcm")
sr = highdicom.sr.srread(here / "sr.dcm")

# The segments lie where nibabel says that the labels do.
labels = nibabel.load(here / "labels.nii.gz")
data = numpy.asarray(labels.dataobj)
volume = seg.get_volume(combine_segments=True)
number = {seg.get_segment_description(n).tracking_id: n for n in seg.segment_numbers}
name = {16: "Brain-Stem", 17: "Left-Hippocampus", 53: "Right-Hippocampus", 60: "Right-VentralDC"}
found = 0
for ijk in numpy.argwhere(data):
    ras = nibabel.affines.apply_affine(labels.affine, ijk)
    at = volume.map_reference_to_indices(numpy.array([ras * [-1, -1, 1]]))[0]
    assert numpy.allclose(at, at.round(), atol=1e-3), at
    assert volume.array[tuple(at.round().astype(int))] == number[name[data[tuple(ijk)]]], (ijk, at)
    found += 1
assert found == (volume.array > 0).sum() == (data > 0).sum()
hippocampus = seg.get_segment_description(number["Left-Hippocampus"])
assert hippocampus.segmented_property_type == codes.SCT.Hippocampus
assert hippocampus.segmented_property_type.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == codes.SCT.Left.value
print("segmentation:", seg.number_of_segments, "segments,", seg.NumberOfFrames, "frames,", found, "voxels in place")

# What a reader of TID 1500 finds.
groups = sr.content.get_volumetric_roi_measurement_groups(finding_type=codes.SCT.Hippocampus)
left = groups[0]
assert left.tracking_identifier == "Left hippocampus"
assert left.finding_sites[0].laterality == codes.SCT.Left
reference = left.referenced_segment
assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
assert reference.referenced_segment_numbers == [number["Left-Hippocampus"]]
measured = left.get_measurements(name=codes.SCT.Volume)[0]
assert measured.value == 2671 and measured.unit == codes.UCUM.CubicMillimeter
said = {i.name.meaning: i for i in measured[0].ContentSequence}
assert said["Normality"].value == codes.SCT.AbnormallyLow
assert said["Z-Score of measurement"].value == -2.49
evidence = sr.CurrentRequestedProcedureEvidenceSequence[0]
assert evidence.StudyInstanceUID == seg.StudyInstanceUID == sr.StudyInstanceUID
referenced = {i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
assert seg.SOPInstanceUID in referenced and len(referenced) == 3
others = sr.content.get_image_measurement_groups()
print("report:", len(sr.content.get_volumetric_roi_measurement_groups()), "structures, and", "; ".join(g.tracking_identifier for g in others))

for tool, file in (("dciodvfy", "seg.dcm"), ("dciodvfy", "sr.dcm"), ("dsrdump", "sr.dcm")):
    if shutil.which(tool):
        run = subprocess.run([tool, here / file], capture_output=True, text=True)
        lines = (run.stderr + (run.stdout if run.returncode else "")).splitlines()
        bad = [l for l in lines if l.startswith(("Error", "E:", "W:")) and "VR checker does not support" not in l]
        assert run.returncode == 0 and not bad, (tool, file, run.returncode, bad, run.stdout[-500:])
        print(tool, file, "finds no error")
for d in (seg, sr):
    assert "PatientName" in d and not str(d.PatientName), "no name is known"
