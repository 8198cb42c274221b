"""NOMIS norms, as internal/norm computes them (Potvin 2021, BSD-3-Clause).

Volumes in mm3, ages in years. The sex term is left out where the published
models lost it (those that hold the cube of the head size); scanner terms are
not used anywhere.
"""
import csv
import os

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.environ.get("FIT_OUT", ROOT)  # where files are written, with the repository's folders below it
SHARED = os.environ.get("NEUROSCREEN_SHARED_DATA", os.path.join(ROOT, "..", "shared", "data"))

MEAN_AGE, MEAN_TIV = 54.960257498335615, 1523160.5903620527
MIN_TIV, MAX_TIV = 1.1e6, 2.0e6
LOG = {"3rd-ventricle", "left-lateral-ventricle", "right-lateral-ventricle", "left-inf-lat-vent", "right-inf-lat-vent", "ventricles"}


def _read():
    rows = {}
    for name in ("nomis_aseg_coefficients.csv", "nomis_aseg_bigregions_coefficients.csv"):
        with open(os.path.join(SHARED, "norms", name)) as f:
            for r in csv.DictReader(f):
                rows[r["region"]] = {k: float(v) if v else 0.0 for k, v in r.items() if k != "region"}
    return rows


COEFFICIENTS = _read()


def region(freesurfer_name):
    """NOMIS's name of a FreeSurfer structure, or None."""
    r = freesurfer_name.split(":")[-1].lower()
    if r in ("left-thalamus", "right-thalamus"):
        r += "-proper"
    return r if r in COEFFICIENTS else None


def z(reg, mm3, age, male, tiv_mm3):
    """Residual in units of the norm's SD, with no segmenter or site layer."""
    c = COEFFICIENTS[reg]
    a, t = age - MEAN_AGE, np.clip(tiv_mm3, MIN_TIV, MAX_TIV) - MEAN_TIV
    mu = (c["intercept"] + c["voxel"] + a * (c["age"] + a * (c["age2"] + a * c["age3"]))
          + t * (c["etiv"] + t * (c["etiv2"] + t * c["etiv3"])) + c["age_x_etiv"] * a * t
          + male * (c["age_x_sex_m"] * a + c["etiv_x_sex_m"] * t))
    if c["etiv3"] == 0:
        mu = mu + male * c["sex_m"]
    v = np.log10(mm3) if reg in LOG else mm3
    return (v - mu) / np.sqrt(c["mse"])
