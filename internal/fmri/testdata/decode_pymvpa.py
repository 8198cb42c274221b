#!/usr/bin/env python3
"""Prints scikit-learn's accuracy on the shared pymvpa_bold run, with the
preprocessing, folds and selection of internal/fmri, for TestDecodeRealRun.

    python3 decode_pymvpa.py FOLDER_OF_BOLD_RUNS
"""
import sys
import warnings

import nibabel as nib
import numpy as np
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

TR, LAG, KEEP, VOLUMES = 2.5, 5.0, 200, 121
data = nib.load(sys.argv[1] + "/pymvpa_bold.nii.gz").get_fdata()
rows = [line.split() for line in open(sys.argv[1] + "/pymvpa_attributes_literal.txt")]
names, run = np.array([r[0] for r in rows]), np.array([int(r[1]) for r in rows])
mean = data.mean(axis=3)
mask = mean > 0.25 * np.percentile(mean, 98)
x = data[mask].T  # frames x voxels
for r in np.unique(run):
    at = run == r
    t = np.arange(at.sum())
    part = x[at]
    part = part - np.column_stack([np.ones_like(t), t]) @ np.polyfit(t, part, 1)[::-1]
    sd = part.std(axis=0)
    x[at] = part / np.where(sd > 0, sd, 1)
samples, labels, groups = [], [], []
t = 0
while t < len(names):
    end = t
    while end < len(names) and names[end] == names[t] and run[end] == run[t]:
        end += 1
    if names[t] != "rest":
        lag = round(LAG / TR)
        samples.append(x[t + lag:min(end + lag, (run[t] + 1) * VOLUMES)].mean(axis=0))
        labels.append(names[t])
        groups.append(run[t])
    t = end
samples, labels, groups = np.array(samples), np.array(labels), np.array(groups)
warnings.simplefilter("ignore")
model = make_pipeline(SelectKBest(f_classif, k=KEEP), LinearSVC(C=1, tol=1e-10, max_iter=1000000))
p = cross_val_predict(model, samples, labels, groups=groups, cv=LeaveOneGroupOut())
print(len(labels), "events,", mask.sum(), "voxels: accuracy", (p == labels).mean())
print(confusion_matrix(labels, p))
