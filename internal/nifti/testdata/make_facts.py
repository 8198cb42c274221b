#!/usr/bin/env python3
"""Writes facts.json: what nibabel 5 says about each file of the shared scans
(shape, type, affine, statistics, hash of the values as float32; no image
data), or why it refuses. Needs numpy and nibabel.

    python3 make_facts.py <folder with odd, refuse, t1, bold>
"""
import hashlib
import json
import os
import sys
import warnings

import nibabel as nib
import numpy as np

warnings.simplefilter("ignore")
nib.imageglobals.logger.disabled = True
root = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
KINDS = ("Nifti1Image", "Nifti1Pair", "Nifti2Image", "Nifti2Pair", "Spm2AnalyzeImage")


def fact(path):
    try:
        img = nib.load(path)
    except Exception as e:
        return {"refused": type(e).__name__}
    f = {"class": type(img).__name__}
    if f["class"] not in KINDS:
        return f
    dt = img.header.get_data_dtype()
    f["dtype"] = dt.newbyteorder("=").name
    if dt.kind not in "iuf":
        return f
    f["shape"] = list(img.shape)
    f["affine"] = [[float(v) for v in row] for row in img.affine]
    try:
        data = img.get_fdata(dtype=np.float64).astype(np.float32)
    except Exception as e:
        return f | {"data": type(e).__name__}
    finite = data[np.isfinite(data)]
    return f | {
        "non_finite": int(data.size - finite.size),
        "min": float(finite.min()), "max": float(finite.max()),
        "mean": float(finite.mean(dtype=np.float64)),
        "sha256": hashlib.sha256(data.astype("<f4").tobytes(order="F")).hexdigest() if finite.size == data.size else "",
    }


facts = {}
for folder in ("odd", "refuse", "t1", "bold"):
    for name in sorted(os.listdir(os.path.join(root, folder))):
        facts[f"{folder}/{name}"] = fact(os.path.join(root, folder, name))
with open(os.path.join(here, "facts.json"), "w") as f:
    f.write("{\n" + ",\n".join(json.dumps(k) + ": " + json.dumps(v, separators=(",", ":"), allow_nan=False)
                               for k, v in sorted(facts.items())) + "\n}\n")
