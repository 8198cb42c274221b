"""What the scripts share: z as the program computes it, statistics with their
intervals, and the writing of model files."""
import csv
import json
import os

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

import nomis

Z95 = 1.959963984540054  # 97.5th percentile of the normal distribution
MODELS = os.path.join(nomis.OUT, "internal", "model", "data")


def _site_ratios():
    with open(os.path.join(nomis.SHARED, "norms", "pcn_between_site_sd.csv")) as f:
        return {r["region"].lower(): float(r["ratio_between_within"]) for r in csv.DictReader(f)}


SITE_RATIO = _site_ratios()


def shift(segmenter):
    with open(os.path.join(nomis.OUT, "internal", "norm", "data", "segmenter_%s.json" % segmenter)) as f:
        return json.load(f)["structures"]


def row_z(structure, mm3, age, male, tiv_mm3, moments=None):
    """z as internal/norm gives it at a site that is not calibrated: less the
    segmenter's shift (n/(n+10) of it), over the norm's and the sites' spread."""
    reg = nomis.region(structure)
    z, sd = nomis.z(reg, mm3, age, male, tiv_mm3), 1.0
    if moments:
        m = moments[structure]
        z = z - m["mean_z"] * m["n"] / (m["n"] + 10)
        if max(m["n"], m.get("n_sd", 0)) >= 20:
            sd = min(max(m["sd_z"], 0.5), 2.0)
    return z / np.hypot(sd, SITE_RATIO[reg])


def wilson(k, n):
    if n == 0:
        return [0.0, 1.0]
    p, z = k / n, Z95
    mid, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [round(float(mid - half), 4), round(float(mid + half), 4)]


def auc_ci(y, s, rng, n=2000):
    """AUC with a 95 % percentile bootstrap over people, drawn within class."""
    y, s = np.asarray(y), np.asarray(s)
    pos, neg = s[y == 1], s[y == 0]
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)  # its mean is the AUC
    times = lambda k: rng.multinomial(k, np.full(k, 1 / k), n) / k  # how often each person is drawn
    b = ((times(len(pos)) @ wins) * times(len(neg))).sum(axis=1)
    return {"auc": rnd(roc_auc_score(y, s)), "ci95": [rnd(v) for v in np.percentile(b, [2.5, 97.5])], "cases": int(len(pos)), "controls": int(len(neg))}


def rnd(x, digits=4):
    return round(float(x), digits)


def ece(y, p, bins=10):
    """Expected calibration error in bins of equal width."""
    b = np.minimum((p * bins).astype(int), bins - 1)
    return sum(abs(y[b == i].mean() - p[b == i].mean()) * (b == i).mean() for i in range(bins) if (b == i).any())


def conformal(y, s, groups, rates=(0.05, 0.1, 0.2, 0.3)):
    """Cross-conformal sets by class from out-of-fold scores s = ln(LR).

    At error rate e a person may be a control if s lies at or below the controls'
    upper bound, a case if at or above the cases' lower bound: the bounds are the
    scores whose rank leaves at most e of the class, one more person counted,
    outside. Coverage is counted with every person's bounds taken from the others.
    """
    def bounds(y, s, e):
        out = {}
        for k, sign in ((0, 1.0), (1, -1.0)):
            strange = np.sort(sign * s[y == k])
            rank = int(np.ceil((1 - e) * (len(strange) + 1)))  # p-value = share of the class at least as strange, > e
            out[k] = sign * (strange[rank - 1] if rank <= len(strange) else np.inf)
        return out

    result = []
    for e in rates:
        b = bounds(y, s, e)
        inside, control, case = np.zeros(len(y), bool), np.zeros(len(y), bool), np.zeros(len(y), bool)
        for i in range(len(y)):
            others = np.arange(len(y)) != i
            bi = bounds(y[others], s[others], e)
            control[i], case[i] = s[i] <= bi[0], s[i] >= bi[1]
            inside[i] = case[i] if y[i] else control[i]
        count = lambda m: {"covered": int(inside[m].sum()), "people": int(m.sum()), "ci95": wilson(int(inside[m].sum()), int(m.sum()))}
        result.append({
            "error_rate": e, "control_at_most_ln_lr": rnd(b[0]), "case_at_least_ln_lr": rnd(b[1]),
            "sets": {"both": int((control & case).sum()), "one": int((control ^ case).sum()), "neither": int((~control & ~case).sum())},
            "coverage": dict({"controls": count(y == 0), "cases": count(y == 1)}, **{g: count(m) for g, m in groups.items()}),
        })
    return result


def newton_logistic(x, y, offset=0.0):
    """Unpenalised logistic regression; returns coefficients and covariance."""
    x = np.column_stack([np.ones(len(y)), x]) if x is not None else np.ones((len(y), 1))
    b = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-(x @ b + offset)))
        h = x.T @ (x * (p * (1 - p))[:, None])
        d = np.linalg.solve(h, x.T @ (y - p))
        b += d
        if np.abs(d).max() < 1e-12:
            break
    return b, np.linalg.inv(h)


def calibration_line(y, logit_p):
    """Slope and its interval, intercept at a slope of 1 and its."""
    b, v = newton_logistic(logit_p[:, None], y)
    a, va = newton_logistic(None, y, offset=logit_p)
    ci = lambda m, var: (m - Z95 * var**0.5, m + Z95 * var**0.5)
    return b[1], ci(b[1], v[1, 1]), a[0], ci(a[0], va[0, 0])


def calibration(y, p, rng):
    """Slope, intercept (calibration in the large, slope held at 1), each with a
    95 % Wald interval; Spiegelhalter's test; Brier; ECE beside what a perfectly
    calibrated model of this size would show."""
    slope, slope_ci, intercept, intercept_ci = calibration_line(y, np.log(p / (1 - p)))
    sp = ((y - p) * (1 - 2 * p)).sum() / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    perfect = [ece((rng.random(len(p)) < p) * 1.0, p) for _ in range(1000)]
    return {
        "slope": rnd(slope), "slope_ci95": [rnd(v) for v in slope_ci], "intercept": rnd(intercept), "intercept_ci95": [rnd(v) for v in intercept_ci],
        "spiegelhalter_z": rnd(sp), "spiegelhalter_p": rnd(2 * stats.norm.sf(abs(sp))), "brier": rnd(((y - p) ** 2).mean()),
        "ece_10_bins": rnd(ece(y, p)), "ece_if_perfectly_calibrated": {"mean": rnd(np.mean(perfect)), "p95": rnd(np.percentile(perfect, 95))},
    }


def write(name, doc):
    os.makedirs(MODELS, exist_ok=True)
    with open(os.path.join(MODELS, name), "w") as f:
        json.dump(doc, f, indent=1, ensure_ascii=False)
        f.write("\n")


def synthetic_people(n, rng):
    """People who do not exist, for the oracle fixtures: volumes near NOMIS's."""
    out = []
    for _ in range(n):
        age, male, tiv = rnd(rng.uniform(60, 90), 1), int(rng.integers(0, 2)), rnd(rng.uniform(1.2e6, 1.9e6), 0)
        p = {"age": age, "male": male, "icv_mm3": tiv, "nWBV": rnd(rng.uniform(.65, .82)), "MMSE": float(rng.integers(15, 31)), "volumes": {}}
        for s in ("Hippocampus", "Amygdala", "Inf-Lat-Vent", "Putamen", "Thalamus"):
            for side in ("Left-", "Right-"):
                reg = nomis.region(side + s)
                mu = nomis.COEFFICIENTS[reg]
                sd = mu["mse"] ** 0.5
                at = -nomis.z(reg, 1.0 if reg in nomis.LOG else 0.0, age, male, tiv) * sd + rng.normal(-0.8, 1.2) * sd
                p["volumes"][side + s] = rnd(10**at if reg in nomis.LOG else at, 1)
        out.append(p)
    return out


def write_oracle(model, people, scores):
    """Scores of synthetic people, for the Go tests to agree with."""
    path = os.path.join(nomis.OUT, "internal", "model", "testdata")
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "oracle_%s.json" % model), "w") as f:
        json.dump({"model": model, "people": [dict(p, ln_lr=float(s)) for p, s in zip(people, scores)]}, f, indent=1)
        f.write("\n")
