"""Alzheimer's models: regularised logistic regression on OASIS-1 at 60 and
over, CDR > 0 against 0. Writes internal/model/data/alzheimers_{scan,table,mmse}.json:
coefficients, their covariance and summary statistics, no subject rows.

Hippocampi enter as z, the place among healthy people of the same age and head
size, as the program computes it for a site that is not calibrated. Everything
is cross-validated in two layers: the inner one chooses the penalty, the outer
one is reported. A person has one scan here (the OASIS_0xxx_MR2 of the
reliability set is not in the table), and that is checked. With --quick only the coefficients are computed.
"""
import os
import sys
import warnings

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import common
import nomis
from common import rnd

SEED, REPEATS, FOLDS = 20240917, 20, 10
GRID = {"logisticregression__C": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]}
LR_CAP = 50.0  # 95 controls and 93 cases say nothing of anything rarer
THRESHOLDS = {"review": 2.0, "flagged": 5.0}  # likelihood ratios

ACKNOWLEDGEMENT = ("Data were provided in part by OASIS-1: Cross-Sectional: Principal Investigators: D. Marcus, R. Buckner, J. Csernansky, "
                   "J. Morris; P50 AG05681, P01 AG03991, P01 AG026276, R01 AG021910, P20 MH071616, U24 RR021382. doi:10.1162/jocn.2007.19.9.1498")

warnings.filterwarnings("ignore", category=FutureWarning)


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


def estimator(seed):
    return GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), GRID, scoring="neg_log_loss",
                        cv=StratifiedKFold(5, shuffle=True, random_state=seed))


def nested(x, y, make, repeats=REPEATS):
    """Out-of-fold log-odds minus the training fold's prior log-odds, [repeat, person]."""
    out = np.zeros((repeats, len(y)))
    for r in range(repeats):
        for tr, te in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED + r).split(x, y):
            p = np.clip(make(SEED + r).fit(x[tr], y[tr]).predict_proba(x[te])[:, 1], 1e-6, 1 - 1e-6)
            out[r, te] = np.log(p / (1 - p)) - np.log(y[tr].mean() / (1 - y[tr].mean()))
    return out


def natural(fit):
    """Coefficients of the unscaled features: (intercept, one per feature)."""
    pipe = fit.best_estimator_ if hasattr(fit, "best_estimator_") else fit
    scaler, lr = pipe[0], pipe[-1]
    b = lr.coef_[0] / scaler.scale_
    return np.r_[lr.intercept_[0] - (b * scaler.mean_).sum(), b]


def lnlr_parameters(b, prior_logit, refs):
    """Moves the origin to refs and takes the training prevalence out."""
    return np.r_[b[0] + (b[1:] * refs).sum() - prior_logit, b[1:]]


def as_features(columns, refs, coef):
    return [{"name": f, "reference": float(refs[i]), "coefficient": float(coef[i + 1])} for i, f in enumerate(columns)]


def main(quick):
    d, x_all, y_all = load()
    for name, columns in MODELS.items():
        keep = x_all[columns].notna().all(axis=1).values
        x, y, dd = x_all.loc[keep, columns].values, y_all[keep], d[keep]
        rng = np.random.default_rng(SEED)
        prior = np.log(y.mean() / (1 - y.mean()))
        refs = np.array([{"Left-Hippocampus": 0.0, "Right-Hippocampus": 0.0}.get(c, round(float(x[:, i].mean()), 4)) for i, c in enumerate(columns)])

        final = estimator(SEED).fit(x, y)
        c = final.best_params_["logisticregression__C"]
        coef = lnlr_parameters(natural(final), prior, refs)

        # scikit-learn's own log-odds of people who do not exist, for the Go tests.
        people = common.synthetic_people(12, np.random.default_rng(SEED))
        moments = common.shift("oasis1")
        synthetic = np.array([[common.row_z(c, q["volumes"][c], q["age"], q["male"], q["icv_mm3"], moments) if c in q["volumes"] else
                               {"age_years": q["age"], "male": q["male"], "intracranial_volume_l": q["icv_mm3"] / 1e6, "nWBV": q["nWBV"], "MMSE": q["MMSE"]}[c]
                               for c in columns] for q in people])
        common.write_oracle("alzheimers-" + name, people, final.decision_function(synthetic) - prior)

        if quick:
            common.write("alzheimers_%s.json" % name, {"intercept": float(coef[0]), "features": as_features(columns, refs, coef)})
            continue

        oof = nested(x, y, estimator)
        aucs = [roc_auc_score(y, o) for o in oof]
        s = oof.mean(axis=0)  # one score per person: the mean over the repeats
        p = 1 / (1 + np.exp(-(s + prior)))
        boot = []
        for _ in range(1000):
            i = rng.integers(0, len(y), len(y))
            if 0 < y[i].mean() < 1:
                f = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(x[i], y[i])
                boot.append(lnlr_parameters(natural(f), np.log(y[i].mean() / (1 - y[i].mean())), refs))
        cov = np.cov(np.array(boot).T)

        perf = {"validation": "nested %d-fold cross-validation, %d repeats; AUC is the mean of the repeats', its interval a bootstrap over people; "
                              "calibration, subgroups and thresholds use each person's mean score" % (FOLDS, REPEATS)}
        perf.update(common.auc_ci(y, s, rng))
        shift = np.mean(aucs) - perf["auc"]  # averaging the repeats flatters the AUC a little: taken back
        perf["auc"], perf["ci95"] = rnd(np.mean(aucs)), [rnd(v + shift) for v in perf["ci95"]]
        severe = (dd.CDR.values == 0) | (dd.CDR.values >= 1)
        perf["cdr_1_or_more_against_0"] = common.auc_ci(y[severe], s[severe], rng)
        perf["calibration"] = common.calibration(y, p, rng)
        groups = {"women": dd["M/F"].values == "F", "men": dd["M/F"].values == "M"}
        for lo, hi in ((60, 69), (70, 79), (80, 96)):
            groups["age %d to %d" % (lo, hi)] = dd.Age.between(lo, hi).values
        perf["subgroups"] = {g: common.auc_ci(y[m], s[m], rng, 1000) for g, m in groups.items()}
        for g, m in groups.items():
            perf["subgroups"][g]["mean_predicted"] = rnd(p[m].mean())
            perf["subgroups"][g]["observed"] = rnd(y[m].mean())
        if name == "table":
            perf["alternatives"] = {
                "logistic with squares and products, nested AUC": rnd(np.mean([roc_auc_score(y, o) for o in nested(x, y, lambda seed: GridSearchCV(
                    make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), LogisticRegression(max_iter=2000)),
                    GRID, scoring="neg_log_loss", cv=StratifiedKFold(5, shuffle=True, random_state=seed)), 3)])),
                "random forest, AUC": rnd(np.mean([roc_auc_score(y, o) for o in nested(x, y, lambda seed: RandomForestClassifier(
                    300, min_samples_leaf=5, random_state=seed), 3)])),
            }
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

        must_not = ["deciding whether a person has the condition, or ruling it out", "anyone under 60", "predicting conversion from mild cognitive impairment",
                    "telling Alzheimer's disease from other dementias: the training label is clinical dementia (CDR > 0), without biomarkers"]
        purpose = {
            "scan": "Likelihood ratio of clinical dementia of the Alzheimer type (CDR > 0) from hippocampal volumes, age, sex and head size.",
            "table": "As alzheimers-scan, with FreeSurfer/FAST's normalised whole-brain volume (nWBV), where a table gives it. The network's brain fraction is not nWBV.",
            "mmse": "As alzheimers-scan, with the MMSE. MMSE partly defines CDR, so its performance here flatters it; shown beside the scan's score, never instead of it.",
        }[name]
        common.write("alzheimers_%s.json" % name, {
            "schema": "neuroscreen.model/1", "name": "alzheimers-" + name, "version": "1", "condition": "alzheimers", "evidence": "external-cohort",
            "kind": "linear", "age_years": [60, int(dd.Age.max())], "segmenter": "oasis1", "log_lr_cap": float(np.log(LR_CAP)),
            "intercept": float(coef[0]),
            "features": as_features(columns, refs, coef),
            "covariance": [[float(v) for v in row] for row in cov],
            "thresholds": thresholds,
            "conformal": [{k: c[k] for k in ("error_rate", "control_at_most_ln_lr", "case_at_least_ln_lr")} for c in sets],
            "card": {
                "purpose": purpose,
                "trained_on": {
                    "cohort": "OASIS-1, people of 60 and over with a CDR and FreeSurfer hippocampi", "n": int(len(y)), "cases": int(y.sum()), "controls": int((y == 0).sum()),
                    "age": "%.0f to %.0f years, mean %.1f" % (dd.Age.min(), dd.Age.max(), dd.Age.mean()), "women": int((dd["M/F"] == "F").sum()),
                    "country": "United States (St. Louis)", "scanner": "one Siemens Vision, 1.5 T", "case_definition": "CDR > 0 (%d of %d cases very mild, CDR 0.5)" % ((dd.CDR == 0.5).sum(), y.sum()),
                    "prevalence": rnd(y.mean(), 6),
                },
                "method": "L2-regularised logistic regression, C = %g chosen by cross-validation; hippocampi as z against NOMIS; ln(LR) = log-odds less the training prior's log-odds, so age and sex act only as the training sample has them; ln(LR) capped at +-ln 50; interval from %d bootstrap refits and the measurement's error" % (c, len(boot)),
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
    main("--quick" in sys.argv[1:])
