#!/usr/bin/env python3
"""Writes fixtures.json: what nibabel and scipy say, for the tests of
internal/volume. Made with numpy 2.4.6, scipy 1.17.1 and nibabel 5.4.2: others may
draw other cases, since what nibabel says decides which are kept.

    python3 make_fixtures.py
"""
import json
import os

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat
from scipy import ndimage

rng = np.random.default_rng(20240229)


def flat(a):
    """First axis fastest, as the tests index."""
    values = [round(float(v), 4) for v in np.asarray(a).ravel(order="F")]
    return [int(v) if v == int(v) else v for v in values]


def rotation(max_degrees):
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    half = np.radians(rng.uniform(0, max_degrees)) / 2
    return quat2mat([np.cos(half), *(np.sin(half) * axis)])


def affine(rot, zooms, trans):
    a = np.eye(4)
    a[:3, :3] = rot @ np.diag(zooms)
    a[:3, 3] = trans
    return a


def orientations():
    """Every orientation, straight, oblique and sheared."""
    out = []
    for perm in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        for signs in np.ndindex(2, 2, 2):
            p = np.zeros((3, 3))
            for col, row in enumerate(perm):
                p[row, col] = 1 - 2 * signs[col]
            for degrees in (0, 30):
                r = rotation(degrees) @ p
                if degrees:
                    r = r @ (np.eye(3) + np.triu(rng.uniform(-0.05, 0.05, (3, 3)), 1))
                a = affine(r, rng.uniform(0.5, 3, 3), rng.uniform(-100, 100, 3))
                shape = [int(n) for n in rng.integers(2, 5, 3)]
                data = rng.integers(0, 255, shape).astype(np.float32)
                c = nib.as_closest_canonical(nib.Nifti1Image(data, a))
                out.append({
                    "affine": a.tolist(),
                    "codes": "".join(nib.aff2axcodes(a)),
                    "shape": shape,
                    "data": flat(data),
                    "canonical_shape": list(c.shape),
                    "canonical_affine": c.affine.tolist(),
                    "canonical_data": flat(c.get_fdata()),
                })
    return out


def skewed():
    """Codes of strongly sheared affines, in which the direction of an axis is
    that of the closest rotation and not its own. Left out are those in which
    two axes compete, where nibabel's answer depends on their order."""
    out = []
    while len(out) < 60:
        a = affine(rng.normal(size=(3, 3)), [1, 1, 1], [0, 0, 0])
        if abs(np.linalg.det(a)) < 0.2:
            continue
        codes = nib.aff2axcodes(a)
        orders = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        if all(nib.aff2axcodes(a[:, [*p, 3]]) == tuple(codes[n] for n in p) for p in orders):
            out.append({"affine": a.tolist(), "codes": "".join(codes)})
    return out


def sample(data, src, dst_shape, dst, order, mode):
    """data on dst's grid, by world coordinates."""
    m = np.linalg.inv(src) @ dst
    ijk = np.indices(dst_shape).reshape(3, -1)
    xyz = m[:3, :3] @ ijk + m[:3, 3:]
    return ndimage.map_coordinates(data, xyz, order=order, mode=mode, cval=0).reshape(dst_shape)


def zooms():
    """Cubic B-splines along the source's axes by map_coordinates, lines where
    every axis is much coarsened, after gaussian_filter."""
    rng = np.random.default_rng(20261127)
    out = []
    for name, src_shape, dst_shape, start, step in [
        ("thick slices", [9, 8, 5], [9, 8, 12], [0, 0, 0], [1, 1, 1 / 3]),
        ("finer, past the edges", [7, 8, 9], [12, 11, 10], [-1.2, -0.3, 0.4], [0.7, 0.85, 0.9]),
        ("a little coarser", [12, 11, 10], [9, 9, 8], [0.3, 0.2, 0.7], [1.1, 1.25, 1.4]),
        ("much coarser", [12, 11, 10], [6, 5, 4], [0.3, 0.5, 0.7], [2, 2, 2.5]),
        ("one slice", [9, 8, 1], [10, 9, 1], [0.2, 0.3, 0], [0.8, 0.8, 1]),
    ]:
        data = rng.uniform(0, 100, src_shape).round(1).astype(np.float32)
        order = 1 if min(step) > 1.5 else 3
        sigma = [float(np.sqrt((v * v - 1) / (8 * np.log(2)))) if v > 1 else 0.0 for v in step]
        # The edge voxels go on outwards, far enough for both filters.
        smoothed = ndimage.gaussian_filter(np.pad(data.astype(np.float64), 20, mode="edge"), sigma)
        at = [start[a] + step[a] * np.arange(dst_shape[a]) for a in range(3)]
        xyz = np.array(np.meshgrid(*at, indexing="ij")).reshape(3, -1)
        want = ndimage.map_coordinates(smoothed, xyz + 20, order=order)
        inside = np.all((xyz >= 0) & (xyz <= np.array(src_shape)[:, None] - 1), axis=0)
        out.append({
            "name": name, "src_shape": src_shape, "src": flat(data), "dst_shape": dst_shape,
            "from": start, "step": step, "want": flat((want * inside).reshape(dst_shape)),
        })
    return out


def resamplings():
    """Trilinear by map_coordinates, after gaussian_filter where sigma is given."""
    out = []
    cases = [
        ("same grid", np.eye(3), [1, 1, 1], [1, 1, 1], 0),
        ("finer", np.eye(3), [1, 1.2, 2], [0.7, 0.7, 0.7], 0),
        ("coarser", np.eye(3), [1, 1, 1.5], [2, 2, 2], 0),
        ("coarser, smoothed", np.eye(3), [1, 1, 1.5], [2, 2.5, 1.5], 1),
        ("permuted and flipped", np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]), [0.9, 1.1, 1.3], [1, 1, 1], 0),
        ("permuted and flipped, smoothed", np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]), [0.9, 1.1, 1.3], [2, 2, 2], 1),
        ("oblique", rotation(40), [1, 1, 1], [1, 1, 1], 0),
        ("oblique, coarser, smoothed", rotation(40), [0.8, 1, 1.2], [2, 2, 2], 1),
        ("barely oblique", rotation(0.5), [1, 1, 1], [1, 1, 1], 0),
        ("one slice", np.eye(3), [1, 1, 5], [1.1, 1.1, 5], 0),
    ]
    for name, rot, src_zooms, dst_zooms, smooth in cases:
        src_shape = [9, 11, 1 if name == "one slice" else 8]
        src = affine(rot, src_zooms, [0, 0, 0])
        # Both centres near each other, so that the grids overlap; not exactly,
        # so that no sample lies on an edge, where rounding decides.
        offset = 0 if name == "same grid" else [0.113, -0.271, 0 if src_shape[2] == 1 else 0.377]
        dst_shape = src_shape if name == "same grid" else [8, 7, 1 if src_shape[2] == 1 else 6]
        src[:3, 3] = -(src[:3, :3] @ ((np.array(src_shape) - 1) / 2))
        dst = affine(np.eye(3), dst_zooms, 0)
        dst[:3, 3] = -(dst[:3, :3] @ ((np.array(dst_shape) - 1) / 2)) + offset
        if name == "same grid":
            dst = src
        data = rng.uniform(0, 100, src_shape).round(1).astype(np.float32)
        sigma = [0, 0, 0]
        smoothed = data.astype(np.float64)
        if smooth:
            # Cardoso et al. 2015: full width at half maximum sqrt(r^2 - 1).
            m = np.linalg.inv(src) @ dst
            r2 = (m[:3, :3] ** 2).sum(axis=1)
            sigma = [float(np.sqrt(max(v - 1, 0) / (8 * np.log(2)))) if v > 1 + 1e-6 else 0.0 for v in r2]
            smoothed = ndimage.gaussian_filter(smoothed, sigma, mode="nearest")
        labels = rng.integers(0, 5, src_shape).astype(np.uint8)
        # Order 0 samples to half a voxel beyond the outermost centres.
        pad = np.pad(labels, 1)
        padded = src @ np.array([[1, 0, 0, -1], [0, 1, 0, -1], [0, 0, 1, -1], [0, 0, 0, 1]])
        out.append({
            "name": name,
            "src_shape": src_shape, "src_affine": src.tolist(), "src": flat(data),
            "dst_shape": dst_shape, "dst_affine": dst.tolist(),
            "sigma": sigma,
            "linear": flat(sample(smoothed, src, dst_shape, dst, 1, "constant")),
            "labels": flat(labels),
            "nearest": flat(sample(pad, padded, dst_shape, dst, 0, "constant")),
        })
    return out


def blurs():
    out = []
    for sigma in ([1, 0, 0], [0.3, 0.8, 2], [0, 3, 0.5]):
        data = rng.uniform(-10, 10, (7, 5, 6)).round(1).astype(np.float32)
        out.append({"shape": [7, 5, 6], "sigma": sigma, "data": flat(data),
                    "blurred": flat(ndimage.gaussian_filter(data.astype(np.float64), sigma, mode="nearest"))})
    return out


def percentiles():
    out = []
    p = [0, 0.1, 1, 25, 50, 75, 99, 99.9, 100]
    for data in (rng.normal(0, 1000, 1001), rng.integers(0, 5, 200), rng.uniform(-1e-6, 1e6, 2), [7.0], [-3.0] * 10):
        x = np.asarray(data, dtype=np.float32)
        out.append({"data": [float(v) for v in x], "p": p,
                    "values": [float(v) for v in np.percentile(x.astype(np.float64), p)]})
    return out


here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "fixtures.json"), "w") as f:
    json.dump({"orientations": orientations(), "skewed": skewed(), "resamplings": resamplings(),
               "blurs": blurs(), "percentiles": percentiles(), "zooms": zooms()}, f, separators=(",", ":"))
    f.write("\n")
