#!/usr/bin/env python3
"""Writes fixtures.json: what nipype, nilearn, networkx and plain numpy say, for
the tests of internal/fmri. Needs nipype 1.11, nilearn 0.14, networkx 3, numpy,
scipy and scikit-learn; deterministic.

    python3 make_fixtures.py
"""
import json
import os
import tempfile
import warnings

import networkx as nx
import nibabel as nib
import numpy as np
from nilearn.connectome import ConnectivityMeasure
from nilearn.maskers import NiftiSpheresMasker
from nilearn.glm.first_level.design_matrix import create_cosine_drift
from nipype.algorithms import confounds as nc
from scipy import stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

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


def cosines(frames, tr, period):
    drift = create_cosine_drift(1 / period, np.arange(frames) * tr)
    return drift[:, :-1]  # without the constant


def stop_band(frames, tr, low, high):
    cols, t = [], np.arange(frames)
    for k in range(1, frames // 2 + 1):
        if not low <= k / (frames * tr) <= high:
            cols.append(np.cos(2 * np.pi * k * t / frames))
            if 2 * k < frames:
                cols.append(np.sin(2 * np.pi * k * t / frames))
    return np.column_stack(cols)


def residual(x, design, kept):
    """numpy's least squares on the kept frames."""
    a = np.column_stack([np.ones(kept.sum()), design[kept]])
    a = a / np.linalg.norm(a, axis=0).clip(1e-300)
    return x[kept] - a @ np.linalg.lstsq(a, x[kept], rcond=1e-10)[0], np.linalg.matrix_rank(a, tol=1e-7)


def cleaning():
    """24 motion regressors, components and filter, by nilearn and numpy."""
    frames, tr = 150, 2.0
    par = np.cumsum(rng.normal(0, [0.05] * 3 + [0.001] * 3, (frames, 6)), axis=0).round(6)
    change = np.diff(par, axis=0, prepend=par[:1])
    motion = np.column_stack([par, change, par**2, change**2])
    high = cosines(frames, tr, 128)
    outlier = np.zeros(frames, bool)
    outlier[[0, 40, 43, 90, 91, 120]] = True
    kept = ~outlier
    kept[41:43] = False  # a stretch of two frames
    tissue = 700 + rng.normal(0, 4, (frames, 30)) + rng.normal(0, 8, (frames, 4)) @ rng.normal(0, 1, (4, 30))
    tissue = tissue.round(3).astype(np.float32)
    filtered, _ = residual(tissue.astype(float), high, kept)
    u = np.linalg.svd(filtered / filtered.std(axis=0), full_matrices=False)[0][:, :5]
    components = np.zeros((frames, 5))
    components[kept] = u
    voxels = (1000 + rng.normal(0, 10, (frames, 4)) + motion[:, :4] * 30 + 20 * high[:, :2].sum(axis=1, keepdims=True))
    voxels = voxels.round(3).astype(np.float32)
    stop = stop_band(frames, tr, 0.008, 0.1)
    full, rank_full = residual(voxels.astype(float), np.column_stack([high, motion, components]), kept)
    band, rank_band = residual(voxels.astype(float), np.column_stack([high, motion, components, stop]), kept)
    return {"frames": frames, "tr": tr, "parameters": numbers(par), "outlier": [bool(o) for o in outlier],
            "kept": [bool(k) for k in kept], "tissue": numbers(tissue.T), "voxels": numbers(voxels.T),
            "cosines": numbers(high.T), "motion": numbers(motion.T), "projector": numbers(u @ u.T @ np.arange(kept.sum())),
            "first": numbers(np.abs(u[:, 0])),
            "full": numbers(full.T), "band": numbers(band.T), "rank_full": int(rank_full), "rank_band": int(rank_band)}


def local():
    """ALFF and fALFF by numpy's FFT, ReHo by scipy's ranks in plain loops."""
    shape, frames, tr = (4, 4, 4), 80, 2.0
    shared = np.cumsum(rng.normal(0, 1, frames))
    x = 800 + rng.normal(0, 6, (*shape, frames)) + shared
    x = x.round(0).astype(np.float32)  # whole numbers: there are ties
    mask = np.ones(shape, bool)
    mask[0, 0, 0] = mask[3, 1, 2] = False
    v = x.astype(float)
    f = np.fft.rfftfreq(frames, tr)
    spectrum = np.fft.rfft(v - v.mean(axis=3, keepdims=True), axis=3)
    spectrum[..., (f < 0.008) | (f > 0.1)] = 0
    slow = np.fft.irfft(spectrum, frames, axis=3).std(axis=3, ddof=1)
    alff, falff = 100 * slow / v.mean(axis=3), slow / v.std(axis=3, ddof=1)
    ranks = stats.rankdata(v, axis=3)
    reho = np.zeros(shape)
    for i, j, k in np.argwhere(mask):
        block = np.s_[max(i - 1, 0):i + 2, max(j - 1, 0):j + 2, max(k - 1, 0):k + 2]
        r = ranks[block][mask[block]]
        count, n = r.shape
        if count >= 14:
            s = ((r.sum(axis=0) - r.sum(axis=0).mean()) ** 2).sum()
            reho[i, j, k] = 12 * s / (count**2 * (n**3 - n))
    order = mask.ravel(order="F")
    pick = lambda a: numbers(a.ravel(order="F")[order])
    return {"shape": shape, "frames": frames, "tr": tr, "voxels": [int(i) for i in np.flatnonzero(order)],
            "data": numbers(np.moveaxis(x, 3, 0).reshape(frames, -1, order="F")[:, order].T),
            "alff": pick(alff), "falff": pick(falff), "reho": pick(reho)}


def connectome():
    """nilearn's ConnectivityMeasure and networkx on 16 nodes."""
    frames, nodes = 120, 16
    hidden = rng.normal(0, 1, (frames, 4))
    x = (hidden @ rng.normal(0, 1, (4, nodes)) + rng.normal(0, 1.2, (frames, nodes))).round(5)

    def correlate(y):
        m = ConnectivityMeasure(kind="correlation", cov_estimator=EmpiricalCovariance(), standardize=False)
        return m.fit_transform([y])[0]

    r = correlate(x)
    z = np.arctanh(r - np.diag(np.diag(r)))
    upper = np.triu_indices(nodes, 1)
    halves = [np.arctanh(correlate(h)[upper]) for h in (x[: frames // 2], x[frames // 2:])]
    keep = round(0.25 * len(upper[0]))
    threshold = np.sort(r[upper])[::-1][keep - 1]
    g = nx.Graph()
    g.add_nodes_from(range(nodes))
    for i, j in zip(*upper):
        if r[i, j] >= threshold and r[i, j] > 0:
            g.add_edge(int(i), int(j), weight=r[i, j], length=1 / r[i, j])
    lengths = dict(nx.all_pairs_dijkstra_path_length(g, weight="length"))
    ways = [lengths[i][j] for i in g for j in g if i < j and j in lengths[i]]
    communities = nx.community.greedy_modularity_communities(g, weight="weight")
    return {"frames": frames, "nodes": nodes, "data": numbers(x.T), "r": numbers(r), "z": numbers(z),
            "split_half": float(np.corrcoef(*halves)[0, 1]),
            "degree": [g.degree(i) for i in g], "strength": numbers([g.degree(i, "weight") for i in g]),
            "clustering": numbers([nx.clustering(g, i, weight="weight") for i in g]),
            "path_length": float(np.mean(ways)), "connected": len(ways) / len(upper[0]),
            "modularity": float(nx.community.modularity(g, communities, weight="weight")),
            "communities": sorted(sorted(c) for c in communities)}


def decoding():
    """scikit-learn on the same folds: 5 runs of 3 conditions, 3 events each."""
    runs, classes, times, voxels, keep = 5, 3, 3, 70, 20
    pattern = rng.normal(0, 0.35, (classes, voxels)) * (rng.random(voxels) < 0.4)
    y, run, x = [], [], []
    for r in range(runs):
        for c in rng.permutation(np.repeat(np.arange(classes), times)):
            y.append(int(c))
            run.append(r)
            x.append(pattern[c] + rng.normal(0, 0.6, voxels))
    x, y, run = np.round(x, 4), np.array(y), np.array(run)
    x[:, 5] = 0  # outside the head
    model = make_pipeline(SelectKBest(f_classif, k=keep), LinearSVC(C=1, tol=1e-10, max_iter=1000000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the voxel without variance
        predicted = cross_val_predict(model, x, y, groups=run, cv=LeaveOneGroupOut())
        model.fit(x, y)
    weights = np.zeros((classes, voxels))
    weights[:, model[0].get_support()] = model[1].coef_
    return {"x": numbers(x), "voxels": voxels, "keep": keep, "class": y.tolist(), "run": run.tolist(),
            "predicted": [int(p) for p in predicted], "weights": numbers(weights),
            "confusion": confusion_matrix(y, predicted).tolist()}


def spheres():
    """nilearn's NiftiSpheresMasker and ConnectivityMeasure on two networks."""
    shape, frames, radius = (14, 15, 12), 50, 6.0
    turn = np.array([[0.995, -0.0998, 0], [0.0998, 0.995, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-3.1, 3.1, 3.4])
    affine[:3, 3] = np.round(-affine[:3, :3] @ (np.array(shape) - 1) / 2 + [3, -20, 14], 3)
    names = ["A", "A", "A", "B", "B"]
    at = [[4.3, 10, 4], [9.2, 4.1, 7.7], [3.1, 4.4, 8.2], [9, 10.2, 3.3], [7.2, 7.3, 8.4]]
    seeds = nib.affines.apply_affine(affine, at).round(2)
    mask = np.ones(shape, np.uint8)
    mask[:4] = 0  # cuts into the first and the third
    hidden = rng.normal(0, 1, (frames, 3))
    x = 900 + rng.normal(0, 8, (*shape, frames))
    for n, s in enumerate(seeds):
        near = np.linalg.norm(nib.affines.apply_affine(affine, np.argwhere(mask >= 0)) - s, axis=1).reshape(shape) < 8
        x[near] += 4 * hidden[:, 0] + 3 * hidden[:, 1 if names[n] == "A" else 2]
    x = x.round(1).astype(np.float32)
    image = nib.Nifti1Image(x, affine)
    masker = NiftiSpheresMasker(seeds, radius=radius, mask_img=nib.Nifti1Image(mask, affine), standardize=None, allow_overlap=False)
    signals = masker.fit_transform(image)
    r = ConnectivityMeasure(EmpiricalCovariance(), kind="correlation", standardize=None).fit_transform([signals])[0]
    z = np.arctanh(r - np.eye(len(r)))
    within = {n: float(np.mean([z[i, j] for i in range(len(r)) for j in range(i) if names[i] == names[j] == n])) for n in "AB"}
    order = np.flatnonzero(mask.ravel(order="F"))
    flat = x.reshape(-1, frames, order="F")[order]
    keep = np.zeros(len(order), bool)  # what lies well away from every sphere is left out of the file
    places = nib.affines.apply_affine(affine, np.column_stack(np.unravel_index(order, shape, order="F")))
    for s in seeds:
        keep |= np.linalg.norm(places - s, axis=1) < 7
    return {"shape": shape, "affine": affine.tolist(), "frames": frames, "radius": radius, "seeds": seeds.tolist(), "network": names,
            "voxels": order[keep].tolist(), "data": numbers(flat[keep]), "signals": numbers(signals.T), "r": numbers(r), "z": numbers(z),
            "within": [within["A"], within["B"]]}


if __name__ == "__main__":
    fixtures = {"dummies": dummies(), "displacement": displacement(), "quality": quality(), "spline": spline(), "cleaning": cleaning(),
                "local": local(), "connectome": connectome(), "decoding": decoding(),
                "spheres": spheres()}
    with open(os.path.join(here, "fixtures.json"), "w") as f:
        json.dump(fixtures, f, separators=(",", ":"))
        f.write("\n")
