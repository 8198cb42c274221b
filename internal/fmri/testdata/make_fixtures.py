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


def displacement():
    """nipype's FramewiseDisplacement, from SPM's order: mm, then radians."""
    par = np.cumsum(rng.normal(0, [0.1] * 3 + [0.002] * 3, (40, 6)), axis=0).round(6)
    with tempfile.TemporaryDirectory() as tmp:
        np.savetxt(os.path.join(tmp, "par.txt"), par)
        fd = nc.FramewiseDisplacement(in_file=os.path.join(tmp, "par.txt"), parameter_source="SPM",
                                      out_file=os.path.join(tmp, "fd.txt"))
        fd.run()
        values = np.loadtxt(os.path.join(tmp, "fd.txt"), skiprows=1)
    return {"parameters": numbers(par), "fd": numbers(values, 7)}


def quality():
    """ComputeDVARS, TSNR and a plain 3dToutcount on a run with a step, a
    spike, a drift and a voxel that doesn't vary."""
    shape, frames, tr = (4, 5, 3), 60, 2.0
    level = rng.uniform(500, 1500, shape)
    x = level[..., None] * (1 + rng.normal(0, 0.01, (*shape, frames)))
    for t in range(1, frames):  # autocorrelation
        x[..., t] = level + 0.4 * (x[..., t - 1] - level) + (x[..., t] - level)
    x += level[..., None] * np.linspace(0, 0.03, frames)
    x[..., 30] *= 1.08
    x[..., 41:] += 5
    x[1, 2, 1, :] = 700
    x = x.round(1).astype(np.float32)
    with tempfile.TemporaryDirectory() as tmp:
        func, mask = os.path.join(tmp, "f.nii"), os.path.join(tmp, "m.nii")
        nib.save(nib.Nifti1Image(x, np.eye(4)), func)
        nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), mask)
        std, plain, _ = nc.compute_dvars(func, mask, remove_zerovariance=True, variance_tol=1e-7)
    detrended = nc.regress_poly(2, x.astype(float), remove_mean=False)[0]
    sd = detrended.std(axis=3)
    # The mean of the series itself: nipype's own also loses the mean of the
    # sampled second Legendre polynomial, 1e-4 here.
    tsnr = np.where(sd > 1e-3, x.astype(float).mean(axis=3) / np.maximum(sd, 1e-9), 0)
    v = x.reshape(-1, frames, order="F").astype(float)
    med = np.median(v, axis=1, keepdims=True)
    mad = np.median(np.abs(v - med), axis=1, keepdims=True)
    far = np.abs(v - med) > stats.norm.isf(0.001 / frames) * np.sqrt(np.pi / 2) * mad
    far[mad[:, 0] == 0] = False
    g = v.mean(axis=0)
    slope = np.polyfit(np.arange(frames) * tr / 60, g, 1)[0]
    return {"shape": shape, "tr": tr, "data": numbers(v), "frames": frames,
            "dvars": numbers(plain), "std_dvars": numbers(std), "tsnr": numbers(tsnr.ravel(order="F")),
            "outlier_share": numbers(far.mean(axis=0)), "global": numbers(g), "drift": float(100 * slope / g.mean())}


def spline():
    """scipy's cubic spline through a small volume, mirrored at its edges."""
    from scipy import ndimage
    x = rng.uniform(0, 100, (7, 6, 5)).round(2)
    at = np.column_stack([rng.uniform(-0.5, n - 0.5, 60) for n in x.shape]).round(4)
    return {"shape": x.shape, "data": numbers(x.ravel(order="F")), "at": at.tolist(),
            "values": numbers(ndimage.map_coordinates(x, at.T, order=3, mode="mirror"))}


if __name__ == "__main__":
    fixtures = {"dummies": dummies(), "displacement": displacement(), "quality": quality(), "spline": spline()}
    with open(os.path.join(here, "fixtures.json"), "w") as f:
        json.dump(fixtures, f, separators=(",", ":"))
        f.write("\n")
