"""Times the steps on a functional run in nipy (motion), nilearn (cleaning,
connectome) and numpy with scipy (ALFF, ReHo, which nilearn doesn't have), on the
same volumes as `bench -functional`, and prints both as JSON lines. A run of fewer
than 200 volumes is continued backwards in time, so that cleaning leaves
something. `scripts/compare.sh --functional RUN TR` installs what it needs.

Usage: python3 compare_functional.py BENCH RUN.nii.gz TR
"""
import json
import os
import subprocess
import sys
import tempfile
import time

import nibabel
import numpy as np


class Steps:
    def __init__(self, frames):
        self.line = {"frames": frames, "voxels": 0, "processors": os.cpu_count()}
        self.begin()

    def begin(self):
        self.wall, self.used = time.perf_counter(), time.process_time()

    def lap(self, step, engine):
        print(json.dumps({"step": step, "engine": engine, "seconds": round(time.perf_counter() - self.wall, 3),
                          "processor_seconds": round(time.process_time() - self.used, 3), **self.line}), flush=True)
        self.begin()


def motion(image, steps):
    """Six parameters a frame, of nipy where it can be installed."""
    try:
        import nipy
        from nipy.algorithms.registration.groupwise_registration import SpaceRealign
    except Exception as e:  # it needs a compiler on some machines
        print(json.dumps({"step": "motion", "engine": "nipy", "missing": str(e)}), flush=True)
        rng = np.random.default_rng(1)
        return np.cumsum(rng.normal(0, 0.01, (image.shape[3], 6)), 0)
    steps.begin()
    realign = SpaceRealign(image)
    realign.estimate(loops=1, between_loops=0)
    steps.lap("motion", "nipy " + nipy.__version__)
    return np.array([np.concatenate([t.translation, t.rotation]) for t in realign._transforms[0]])


def reho(data, mask):
    """Kendall's W over 27 voxels; data is frames x voxels of the mask."""
    from scipy.stats import rankdata
    n = data.shape[0]
    ranks = np.zeros(mask.shape + (n,), np.float32)
    ranks[mask] = rankdata(data, axis=0).T
    inside = np.pad(mask, 1).astype(np.int16)
    total, k = np.zeros_like(ranks), np.zeros(mask.shape, np.int16)
    ranks = np.pad(ranks, ((1, 1), (1, 1), (1, 1), (0, 0)))
    x, y, z = mask.shape
    for i in range(3):
        for j in range(3):
            for l in range(3):
                total += ranks[i:i + x, j:j + y, l:l + z]
                k += inside[i:i + x, j:j + y, l:l + z]
    total = total[mask]
    s = ((total - total.mean(1, keepdims=True)) ** 2).sum(1)
    return 12 * s / (k[mask].astype(float) ** 2 * (n ** 3 - n))


def main():
    bench, path, tr = sys.argv[1], sys.argv[2], float(sys.argv[3])
    import nilearn
    from nilearn.connectome import ConnectivityMeasure
    from nilearn.signal import clean

    image = nibabel.load(path)
    if image.shape[3] < 200:
        data = np.asanyarray(image.dataobj)
        data = np.concatenate([data, data[..., ::-1]], 3)[..., :200].astype(np.float32)
        image = nibabel.Nifti1Image(data, image.affine)
    folder = tempfile.TemporaryDirectory()
    same = os.path.join(folder.name, "run.nii.gz")
    nibabel.save(image, same)
    subprocess.run([bench, "-functional", same, "-tr", str(tr)], check=True)

    steps = Steps(image.shape[3])
    data = np.asanyarray(nibabel.load(same).dataobj).astype(np.float32)
    steps.lap("read", "nibabel " + nibabel.__version__)
    six = motion(nibabel.Nifti1Image(data, image.affine), steps)

    mean = data.mean(3)
    mask = mean > 0.25 * np.percentile(mean, 98)
    steps.line["voxels"] = int(mask.sum())
    series = data[mask].T.copy()
    change = np.vstack([np.zeros(6), np.diff(six, axis=0)])
    confounds = np.hstack([six, change, six ** 2, change ** 2])
    steps.begin()
    cleaned = clean(series, confounds=confounds, t_r=tr, low_pass=0.1, high_pass=0.008, standardize=None, detrend=True)
    steps.lap("clean", "nilearn " + nilearn.__version__)
    full = clean(series, confounds=confounds, t_r=tr, standardize=None, detrend=True)
    alff = cleaned.std(0)
    alff / full.std(0)
    steps.lap("alff", "nilearn and numpy")
    order = np.flatnonzero(mask.ravel())  # the series' own order
    slab = (np.ravel_multi_index(np.unravel_index(order, mask.shape), mask.shape, order="F") * 33) // mask.size
    nodes = np.stack([cleaned[:, slab == s].mean(1) for s in np.unique(slab)], 1)
    ConnectivityMeasure(kind="correlation").fit_transform([nodes])
    steps.lap("connectome", "nilearn " + nilearn.__version__)
    reho(cleaned, mask)
    steps.lap("reho", "numpy and scipy")


main()
