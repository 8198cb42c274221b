#!/usr/bin/env python3
"""Writes fixtures.json: what nipype, nilearn, networkx and plain numpy say, for
the tests of internal/fmri. Needs nipype 1.11, nilearn 0.14, networkx 3, numpy,
scipy and scikit-learn; deterministic.

    python3 make_fixtures.py
"""
import json
import os
import tempfile

import nibabel as nib
import numpy as np
from nipype.algorithms import confounds as nc
from scipy import stats

rng = np.random.default_rng(20240611)
here = os.path.dirname(os.path.abspath(__file__))


def numbers(a, digits=9):
    return [float(f"{v:.{digits}g}") for v in np.asarray(a, dtype=float).ravel()]


def dummies():
    """nipype's is_outlier, as its NonSteadyStateDetector calls it."""
    out = []
    for extra in ([], [40], [60, 20, 8], [5, 5, 5], [-30], [60, 0, 60]):
        x = 1000 + rng.normal(0, 2, 80).round(3)
        x[: len(extra)] += extra
        out.append({"means": numbers(x), "count": int(nc.is_outlier(x[:50]))})
    return out


if __name__ == "__main__":
    fixtures = {"dummies": dummies()}
    with open(os.path.join(here, "fixtures.json"), "w") as f:
        json.dump(fixtures, f, separators=(",", ":"))
        f.write("\n")
