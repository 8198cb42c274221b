#!/usr/bin/env python3
"""How far the place of a head in MNI space, by the centroids of its structures,
lies from an affine that dipy finds by mutual information, at the default
network's seeds. Needs dipy, nibabel, numpy and bin/neuroscreen.

    python3 fit/mni/compare.py ../shared/data/scans [HEAD ...]
"""
import csv
import gzip
import os
import subprocess
import sys
import tempfile

import nibabel as nib
import numpy as np
from dipy.align import affine_registration
from nibabel.processing import resample_to_output

HEADS = ["chris_t1", "t1_crop", "ds000011_sub-01_T1w", "ds000011_sub-02_T1w", "ds002748_sub-01_T1w", "malf_1002_SS", "malf_1010_SS"]
SIDES = [(7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53), (18, 54), (26, 58), (28, 60)]
NAMES = ["Cerebellum-White-Matter", "Cerebellum-Cortex", "Thalamus", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala",
         "Accumbens-area", "VentralDC"]
STIFF, ROBUST = 30.0, 3.0  # internal/fmri/place.go
here = os.path.dirname(os.path.abspath(__file__))
root = os.path.join(here, "..", "..")


def rows(path):
    with open(path) as f:
        return list(csv.DictReader(line for line in f if not line.startswith("#")))


def segment(image):
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([os.path.join(root, "bin/neuroscreen"), "analyze", image, "--age", "40", "--sex", "F", "-q", "--out", tmp],
                       check=True, stdout=subprocess.DEVNULL)
        seg = nib.load(os.path.join(tmp, "segmentation.nii.gz"))
        return np.asarray(seg.dataobj), seg.affine


def apply(m, x):
    return nib.affines.apply_affine(m, x)


def fit(x, y):
    """The affine of internal/fmri/place.go."""
    w = np.ones(len(x))
    for _ in range(30):
        mx, my = w @ x / w.sum(), w @ y / w.sum()
        within, across = (x - mx).T @ (w[:, None] * (x - mx)), (y - my).T @ (w[:, None] * (x - mx))
        u, d, v = np.linalg.svd(across)
        sign = np.array([1, 1, np.sign(np.linalg.det(u @ v))])
        similar = (d * sign).sum() / np.trace(within) * (u * sign) @ v
        m = np.eye(4)
        m[:3, :3] = (across + STIFF**2 * similar) @ np.linalg.inv(within + STIFF**2 * np.eye(3))
        m[:3, 3] = my - m[:3, :3] @ mx
        off = np.linalg.norm(apply(m, x) - y, axis=1)
        w = 1 / (1 + (off / ROBUST) ** 2)
    return m, np.sqrt((off**2).mean())


def main(scans, heads):
    table = {r["structure"]: [float(r[a]) for a in "xyz"] for r in rows(os.path.join(root, "internal/anatomy/mni.csv"))}
    seeds = np.array([[float(r[a]) for a in "xyz"] for r in rows(os.path.join(root, "internal/fmri/atlas/default_mode.csv"))])
    marks = [(label, table[side + name]) for pair, name in zip(SIDES, NAMES) for label, side in zip(pair, ("Left-", "Right-"))]
    mni = nib.load(os.path.join(scans, "odd/mniRL.nii.gz"))  # for the affine: letters are painted into it
    with tempfile.TemporaryDirectory() as tmp:
        raw = gzip.open(os.path.join(scans, "odd/oro_anlz_avg152T1.img.gz")).read()
        average = np.frombuffer(raw, np.uint8).reshape(mni.shape, order="F")[::-1].astype(np.float32)
        path = os.path.join(tmp, "average.nii.gz")
        nib.Nifti1Image(average, mni.affine).to_filename(path)
        labels, _ = segment(path)
    average = (average * ((labels > 0) & (labels != 24)))[::2, ::2, ::2]
    for head in heads:
        path = os.path.join(scans, "t1", head + ".nii.gz")
        labels, affine = segment(path)
        x = np.array([apply(affine, np.argwhere(labels == label)).mean(axis=0) for label, _ in marks])
        ours, residual = fit(x, np.array([p for _, p in marks]))
        brain = np.squeeze(nib.load(path).get_fdata()).astype(np.float32) * ((labels > 0) & (labels != 24))
        coarse = resample_to_output(nib.Nifti1Image(brain, affine), (4, 4, 4), order=1)
        _, theirs = affine_registration(coarse.get_fdata().astype(np.float32), average, moving_affine=coarse.affine,
                                        static_affine=mni.affine @ np.diag([2, 2, 2, 1]),
                                        pipeline=["center_of_mass", "translation", "rigid", "affine"],
                                        level_iters=[60, 30], sigmas=[2, 0], factors=[2, 1])
        off = np.linalg.norm(apply(ours, apply(theirs, seeds)) - seeds, axis=1)
        their = np.linalg.norm(apply(np.linalg.inv(theirs), x) - [p for _, p in marks], axis=1)
        print(f"{head}: seeds {np.median(off):.1f} mm apart, at worst {off.max():.1f}; structures off by {residual:.1f} mm (rms), "
              f"by mutual information {np.sqrt((their**2).mean()):.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or HEADS)
