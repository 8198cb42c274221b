"""Statistics of drawn scores by scikit-learn and scipy, for the Go tests of
internal/validate: nobody's data.
"""
import json
import os

import numpy as np
from scipy import optimize, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

import common
import nomis


def logistic_fit(x, y, offset, hold_slope):
    """Maximum likelihood by a general optimiser: another way than Newton's."""
    def loss(b):
        z = offset + b[0] + (1.0 if hold_slope else b[1]) * x
        return np.logaddexp(0, z).sum() - z[y == 1].sum()
    r = optimize.minimize(loss, [0.0] if hold_slope else [0.0, 1.0], method="BFGS", options={"gtol": 1e-9})
    return [float(v) for v in r.x], float(-r.fun)


def ece(y, p):
    """From scikit-learn's calibration curve, each bin weighed by its people."""
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="uniform")
    n, _ = np.histogram(p, np.linspace(0, 1, 11))
    return float(np.abs(observed - predicted) @ n[n > 0] / len(y))


def spiegelhalter(y, p):
    """From its definition: the Brier score against its mean and variance if every
    probability is right, each person's square being one of two."""
    mean = (p * (1 - p) ** 2 + (1 - p) * p**2).sum()
    variance = (p * (1 - p) ** 4 + (1 - p) * p**4 - (p * (1 - p) ** 2 + (1 - p) * p**2) ** 2).sum()
    z = float((((y - p) ** 2).sum() - mean) / variance**0.5)
    return z, float(2 * stats.norm.sf(abs(z)))


def dataset(rng, n, prevalence, separation, slope, ties):
    y = (rng.random(n) < prevalence).astype(int)
    s = slope * (separation * (y - 0.5) + rng.normal(size=n) * np.sqrt(separation))
    return y, np.round(s, 1) if ties else np.round(s, 6)


def main():
    rng = np.random.default_rng(7)
    out = []
    for n, prevalence, separation, slope, ties in ((60, .5, 1.5, 1, False), (200, .3, 2, 1.6, False), (120, .6, .5, 1, True), (400, .2, 3, .7, True)):
        y, s = dataset(rng, n, prevalence, separation, slope, ties)
        prior = np.log(y.mean() / (1 - y.mean()))
        p = 1 / (1 + np.exp(-(s + prior)))
        boot = stats.bootstrap((s[y == 1], s[y == 0]), lambda a, b: roc_auc_score(np.r_[np.ones(len(a)), np.zeros(len(b))], np.r_[a, b]),
                               vectorized=False, paired=False, method="percentile", n_resamples=2000, random_state=1)
        both, loglik = logistic_fit(s, y, prior, False)
        one, _ = logistic_fit(s, y, prior, True)
        lp, _ = logistic_fit(np.log(p / (1 - p)), y, 0.0, False)
        c = common.calibration(y, p, np.random.default_rng(1))
        out.append({
            "y": y.tolist(), "ln_lr": s.tolist(), "auc": float(roc_auc_score(y, s)), "auc_ci95": [float(boot.confidence_interval.low), float(boot.confidence_interval.high)],
            "ece": ece(y, p), "spiegelhalter": spiegelhalter(y, p), "brier": float(brier_score_loss(y, p)), "log_loss": float(log_loss(y, p)), "line": both, "line_loglik": loglik, "intercept_alone": one[0], "calibration_slope": lp[1],
            "calibration": c,
        })
    wilson = [{"k": k, "n": n, "ci95": [float(v) for v in stats.binomtest(k, n).proportion_ci(method="wilson")]} for k, n in ((0, 7), (3, 10), (86, 95), (95, 95))]
    for w in wilson:  # the cards' own, rounded
        assert np.allclose(common.wilson(w["k"], w["n"]), w["ci95"], rtol=0, atol=1e-4), w
    path = os.path.join(nomis.OUT, "internal", "validate", "testdata")
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "oracle_statistics.json"), "w") as f:
        json.dump({"sets": out, "wilson": wilson}, f)
        f.write("\n")


if __name__ == "__main__":
    main()
