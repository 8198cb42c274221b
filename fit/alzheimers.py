"""Alzheimer's models: regularised logistic regression on OASIS-1 at 60 and
over, CDR > 0 against 0. Writes internal/model/data/alzheimers_{scan,table,mmse}.json:
coefficients, their covariance and summary statistics, no subject rows.

Hippocampi enter as z, the place among healthy people of the same age and head
size, as the program computes it for a site that is not calibrated. What age, sex
and head size alone say in this sample, where 39 of 63 men but 54 of 125 women
are cases, is how it was recruited and belongs to the prior: ln(LR) is the
log-odds of all features less the log-odds of those three. Everything
is cross-validated in two layers: the inner one chooses the penalty, the outer
one is reported. A person has one scan here (the OASIS_0xxx_MR2 of the
reliability set is not in the table), and that is checked.
"""
import os

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import common
import nomis
from common import rnd

SEED, REPEATS, FOLDS = 20240917, 20, 10
GRID = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])  # of C, the weight of the data against the penalty
UNPENALISED = 1e6  # C of a fit without a penalty to speak of
LR_CAP = 50.0  # 95 controls and 93 cases say nothing of anything rarer
THRESHOLDS = {"review": 2.0, "flagged": 5.0}  # likelihood ratios

ACKNOWLEDGEMENT = ("Data were provided in part by OASIS-1: Cross-Sectional: Principal Investigators: D. Marcus, R. Buckner, J. Csernansky, "
                   "J. Morris; P50 AG05681, P01 AG03991, P01 AG026276, R01 AG021910, P20 MH071616, U24 RR021382. doi:10.1162/jocn.2007.19.9.1498")


def load():
    d = pd.read_csv(os.path.join(nomis.SHARED, "tables", "oasis1_merged.csv"))
    d = d[(d.Age >= 60) & d.CDR.notna() & d.LeftHippoVol.notna() & d.RightHippoVol.notna()].reset_index(drop=True)
    assert not d.ID.str[:9].duplicated().any(), "one person, two rows: group the folds"
    male, tiv = (d["M/F"] == "M") * 1.0, d.eTIV * 1000.0  # the table's eTIV is in cm3
    m = common.shift("oasis1")
    x = pd.DataFrame({
        "Left-Hippocampus": common.row_z("Left-Hippocampus", d.LeftHippoVol, d.Age, male, tiv, m),
        "Right-Hippocampus": common.row_z("Right-Hippocampus", d.RightHippoVol, d.Age, male, tiv, m),
        "age_years": d.Age * 1.0, "male": male, "intracranial_volume_l": tiv / 1e6, "nWBV": d.nWBV, "MMSE": d.MMSE,
    })
    return d, x, (d.CDR > 0).values * 1


MODELS = {
    "scan": ["Left-Hippocampus", "Right-Hippocampus", "age_years", "male", "intracranial_volume_l"],
    "table": ["Left-Hippocampus", "Right-Hippocampus", "age_years", "male", "intracranial_volume_l", "nWBV"],
    "mmse": ["Left-Hippocampus", "Right-Hippocampus", "age_years", "male", "intracranial_volume_l", "MMSE"],
}


COVARIATES = np.array([2, 3, 4])  # age, sex and head size in each of them


def penalised(x, y, cs):
    """L2-penalised logistic regression of standardised features for every C at
    once, [C, intercept and coefficients of x as it came]: scikit-learn's
    objective, by Newton's method on all of them together, for that is what makes
    nested cross-validation a matter of seconds. main() holds it to scikit-learn.
    """
    mean, sd = x.mean(axis=0), x.std(axis=0)
    u = np.column_stack([np.ones(len(y)), (x - mean) / sd])
    free = np.r_[0.0, np.ones(x.shape[1])]  # the intercept is not penalised
    b = np.zeros((len(cs), u.shape[1]))
    for _ in range(50):
        p = expit(b @ u.T)
        g = cs[:, None] * ((p - y) @ u) + b * free
        h = cs[:, None, None] * ((u.T[None] * (p * (1 - p))[:, None, :]) @ u) + np.diag(free)
        step = np.linalg.solve(h, g[..., None])[..., 0]
        b -= step
        if np.abs(step).max() < 1e-10:
            break
    w = b[:, 1:] / sd
    return np.column_stack([b[:, 0] - w @ mean, w])


def chosen(x, y, seed):
    """The C of the least mean log loss in five folds."""
    loss = np.zeros(len(GRID))
    for tr, te in StratifiedKFold(5, shuffle=True, random_state=seed).split(x, y):
        b = penalised(x[tr], y[tr], GRID)
        z = b[:, :1] + b[:, 1:] @ x[te].T
        loss += (np.logaddexp(0, z) - z * y[te]).mean(axis=1)
    return GRID[loss.argmin()]


def recruited(x, y):
    """Log-odds by the covariates alone, with no penalty to speak of, so that
    nothing of them is left over; zeros for the other features."""
    b = np.zeros(x.shape[1] + 1)
    b[np.r_[0, 1 + COVARIATES]] = penalised(x[:, COVARIATES], y, np.array([UNPENALISED]))[0]
    return b


def log_odds(x, y, seed):
    return linear(penalised(x, y, np.array([chosen(x, y, seed)]))[0])


def ln_lr(x, y, c):
    return penalised(x, y, np.array([c]))[0] - recruited(x, y)


def linear(b):
    return lambda x: b[0] + x @ b[1:]


def nested(x, y, fit, repeats=REPEATS):
    """Out-of-fold scores, [repeat, person]; fit(x, y, seed) returns a function of x."""
    out = np.zeros((repeats, len(y)))
    for r in range(repeats):
        for tr, te in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED + r).split(x, y):
            out[r, te] = fit(x[tr], y[tr], SEED + r)(x[te])
    return out


def logit(p):
    return np.log(p / (1 - p))


def squares(x, y, seed):
    """The same regression on squares and products too."""
    make = make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False)).fit(x)
    varied = make.transform(x).std(axis=0) > 1e-9  # the square of a two-valued feature may be constant
    f = log_odds(make.transform(x)[:, varied], y, seed)
    return lambda new: f(make.transform(new)[:, varied])


def forest(x, y, seed):
    f = RandomForestClassifier(300, min_samples_leaf=5, random_state=seed).fit(x, y)
    return lambda new: logit(np.clip(f.predict_proba(new)[:, 1], 1e-6, 1 - 1e-6))


def intervals_hold(x, y, c, cohorts=500):
    """How often the card's intervals hold the truth: cohorts of this size drawn
    from normal groups like these, and for each what its model does on people
    without end. Cross-validated as the card's figures are, once, at a fixed C.
    """
    rng = np.random.default_rng(SEED)
    groups = [(x[y == k].mean(axis=0), np.cov(x[y == k].T)) for k in (0, 1)]
    n = [int((y == 0).sum()), int(y.sum())]
    labels = np.repeat([0, 1], n)
    many = np.concatenate([rng.multivariate_normal(m, v, 20000 * k // len(y)) for (m, v), k in zip(groups, n)])
    many_y = np.repeat([0.0, 1.0], [20000 * k // len(y) for k in n])
    prior = logit(y.mean())
    held = {"auc": 0, "slope": 0, "intercept": 0}
    for _ in range(cohorts):
        d = np.concatenate([rng.multivariate_normal(m, v, k) for (m, v), k in zip(groups, n)])
        b = ln_lr(d, labels, c)
        (m0, v0), (m1, v1) = groups
        truth = {"auc": norm.cdf(b[1:] @ (m1 - m0) / np.sqrt(b[1:] @ (v0 + v1) @ b[1:]))}
        score = (prior + b[0] + many @ b[1:])[:, None]
        truth["slope"] = common.newton_logistic(score, many_y)[0][1]
        truth["intercept"] = common.newton_logistic(None, many_y, offset=score[:, 0])[0][0]
        s = np.zeros(len(labels))
        for tr, te in StratifiedKFold(FOLDS, shuffle=True, random_state=int(rng.integers(1 << 31))).split(d, labels):
            s[te] = linear(ln_lr(d[tr], labels[tr], c))(d[te])
        found = {"auc": common.auc_ci(labels, s, rng)["ci95"]}
        found["slope"], found["intercept"] = common.calibration_line(labels, s + prior)[1::2]
        for k, (lo, hi) in found.items():
            held[k] += lo <= truth[k] <= hi
    return {"cohorts": cohorts, "people_each": len(y), "meaning": "share of 95 % intervals that held the truth, in cohorts drawn from normal groups like these",
            **{k + "_interval": rnd(v / cohorts, 3) for k, v in held.items()}}


def natural(pipe):
    """Coefficients of the unscaled features: (intercept, one per feature)."""
    scaler, lr = pipe[0], pipe[-1]
    w = lr.coef_[0] / scaler.scale_
    return np.r_[lr.intercept_[0] - w @ scaler.mean_, w]


def at(refs, b):
    """The same line with its origin at refs."""
    return np.r_[b[0] + b[1:] @ refs, b[1:]]


def as_features(columns, refs, coef):
    return [{"name": f, "reference": float(refs[i]), "coefficient": float(coef[i + 1])} for i, f in enumerate(columns)]


def main():
    d, x_all, y_all = load()
    for name, columns in MODELS.items():
        keep = x_all[columns].notna().all(axis=1).values
        x, y, dd = x_all.loc[keep, columns].values, y_all[keep], d[keep]
        rng = np.random.default_rng(SEED)
        prior = logit(y.mean())
        refs = np.array([{"Left-Hippocampus": 0.0, "Right-Hippocampus": 0.0}.get(c, round(float(x[:, i].mean()), 4)) for i, c in enumerate(columns)])

        c = chosen(x, y, SEED)
        sklearn = lambda c: make_pipeline(StandardScaler(), LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000))
        final, sample = sklearn(c).fit(x, y), sklearn(UNPENALISED).fit(x[:, COVARIATES], y)
        b = natural(final)
        b[np.r_[0, 1 + COVARIATES]] -= natural(sample)
        assert np.allclose(b, ln_lr(x, y, c), rtol=0, atol=1e-8), "scikit-learn fits another line"
        coef = at(refs, b)

        # scikit-learn's own log-odds of people who do not exist, for the Go tests.
        people = common.synthetic_people(12, np.random.default_rng(SEED))
        moments = common.shift("oasis1")
        synthetic = np.array([[common.row_z(c, q["volumes"][c], q["age"], q["male"], q["icv_mm3"], moments) if c in q["volumes"] else
                               {"age_years": q["age"], "male": q["male"], "intracranial_volume_l": q["icv_mm3"] / 1e6, "nWBV": q["nWBV"], "MMSE": q["MMSE"]}[c]
                               for c in columns] for q in people])
        common.write_oracle("alzheimers-" + name, people, final.decision_function(synthetic) - sample.decision_function(synthetic[:, COVARIATES]))

        oof = nested(x, y, lambda x, y, seed: linear(ln_lr(x, y, chosen(x, y, seed))))
        aucs = [roc_auc_score(y, o) for o in oof]
        s = oof.mean(axis=0)  # one score per person: the mean over the repeats
        p = 1 / (1 + np.exp(-(s + prior)))
        boot = []
        for _ in range(1000):
            i = rng.integers(0, len(y), len(y))
            if 0 < y[i].mean() < 1:
                boot.append(at(refs, ln_lr(x[i], y[i], c)))
        cov = np.cov(np.array(boot).T)

        perf = {"validation": "nested %d-fold cross-validation, %d repeats; AUC is the mean of the repeats', its interval a bootstrap over people; "
                              "calibration, subgroups and thresholds use each person's mean score, with the share of cases (a subgroup's own) as prior; intervals hold the models still and resample people" % (FOLDS, REPEATS)}
        perf.update(common.auc_ci(y, s, rng))
        shift = np.mean(aucs) - perf["auc"]  # averaging the repeats flatters the AUC a little: taken back
        perf["auc"], perf["ci95"] = rnd(np.mean(aucs)), [rnd(v + shift) for v in perf["ci95"]]
        severe = (dd.CDR.values == 0) | (dd.CDR.values >= 1)
        perf["cdr_1_or_more_against_0"] = common.auc_ci(y[severe], s[severe], rng)
        perf["calibration"] = common.calibration(y, p, rng)
        groups = {"women": dd["M/F"].values == "F", "men": dd["M/F"].values == "M"}
        for lo, hi in ((60, 69), (70, 79), (80, 96)):
            groups["age %d to %d" % (lo, hi)] = dd.Age.between(lo, hi).values
        perf["subgroups"] = {g: dict(common.auc_ci(y[m], s[m], rng), calibration=common.calibration(y[m], expit(s[m] + logit(y[m].mean())), rng))
                             for g, m in groups.items()}
        alternative = lambda fit: rnd(np.mean([roc_auc_score(y, o) for o in nested(x, y, fit, 2)]))
        perf["alternatives"] = {"meaning": "nested AUC of log-odds, with what age, sex and head size alone say left in", "this model": alternative(log_odds),
                                "with squares and products": alternative(squares), "random forest": alternative(forest)}
        if name == "scan":
            perf["do_the_intervals_hold"] = intervals_hold(x, y, c)
        sets = common.conformal(y, s, groups)
        thresholds = []
        for flag, lr in THRESHOLDS.items():
            hit = s >= np.log(lr)
            tn, tp = int((~hit & (y == 0)).sum()), int((hit & (y == 1)).sum())
            thresholds.append({
                "flag": flag, "rule": "likelihood ratio >= %g" % lr,
                "specificity": rnd(tn / (y == 0).sum()), "specificity_ci95": common.wilson(tn, int((y == 0).sum())),
                "sensitivity": rnd(tp / y.sum()), "sensitivity_ci95": common.wilson(tp, int(y.sum())),
            })
        if name == "mmse":
            perf["at_the_limits_of_the_scan"] = {t["rule"]: {k: v for k, v in t.items() if k not in ("flag", "rule")} for t in thresholds}

        must_not = ["deciding whether a person has the condition, or ruling it out", "anyone under 60", "predicting conversion from mild cognitive impairment",
                    "telling Alzheimer's disease from other dementias: the training label is clinical dementia (CDR > 0), without biomarkers"]
        purpose = {
            "scan": "Likelihood ratio of clinical dementia of the Alzheimer type (CDR > 0) from hippocampal volumes, age, sex and head size.",
            "table": "As alzheimers-scan, with FreeSurfer/FAST's normalised whole-brain volume (nWBV), where a table gives it. The network's brain fraction is not nWBV.",
            "mmse": "As alzheimers-scan, with the MMSE. MMSE partly defines CDR, so its performance here flatters it; shown beside the scan's score, never instead of it.",
        }[name]
        common.write("alzheimers_%s.json" % name, {
            "schema": "neuroscreen.model/1", "name": "alzheimers-" + name, "version": "2", "condition": "alzheimers", "evidence": "external-cohort",
            "kind": "linear", "age_years": [60, int(dd.Age.max())], "segmenter": "oasis1", "log_lr_cap": float(np.log(LR_CAP)),
            "intercept": float(coef[0]),
            "features": as_features(columns, refs, coef),
            "covariance": [[float(v) for v in row] for row in cov],
            "thresholds": [] if name == "mmse" else thresholds,  # it sets no flag
            "conformal": [{k: c[k] for k in ("error_rate", "control_at_most_ln_lr", "case_at_least_ln_lr")} for c in sets],
            "card": {
                "purpose": purpose,
                "trained_on": {
                    "cohort": "OASIS-1, people of 60 and over with a CDR and FreeSurfer hippocampi", "n": int(len(y)), "cases": int(y.sum()), "controls": int((y == 0).sum()),
                    "age": "%.0f to %.0f years, mean %.1f" % (dd.Age.min(), dd.Age.max(), dd.Age.mean()), "sex": "%d women, %d men" % ((dd["M/F"] == "F").sum(), (dd["M/F"] == "M").sum()),
                    "country": "United States (St. Louis)", "scanner": "one Siemens Vision, 1.5 T", "case_definition": "CDR > 0 (%d of %d cases very mild, CDR 0.5)" % ((dd.CDR == 0.5).sum(), y.sum()),
                    "prevalence": rnd(y.mean(), 6),
                },
                "method": "L2-regularised logistic regression, C = %g chosen by cross-validation; hippocampi as z against NOMIS; ln(LR) = log-odds less those of age, sex and head size alone, which say how the sample was recruited and belong to the prior; ln(LR) capped at +-ln 50; interval from %d bootstrap refits and the measurement's error" % (c, len(boot)),
                "performance": perf,
                "conformal_sets": {"meaning": "which of case and control the score can't exclude at an error rate, by class; valid for FreeSurfer volumes, not validated on the network's", "at": sets},
                "limits": ["one scanner at one site", "FreeSurfer volumes; volumes of another segmenter arrive through its shift and this is not validated", "nearly half of the sample are cases: the posterior needs a prior"],
                "must_not_be_used_for": must_not,
                "source": "shared tables/oasis1_merged.csv through fit/alzheimers.py", "licence": "OASIS data use agreement; coefficients and summary statistics only", "acknowledgement": ACKNOWLEDGEMENT,
            },
        })
        print("%-5s n=%d C=%g AUC %.3f %s slope %s CDR>=1 %.3f" % (name, len(y), c, perf["auc"], perf["ci95"], perf["calibration"]["slope"], perf["cdr_1_or_more_against_0"]["auc"]))
        print("      ", dict(zip(["intercept"] + columns, np.round(coef, 3))), {t["flag"]: (t["specificity"], t["sensitivity"]) for t in thresholds})


if __name__ == "__main__":
    main()
