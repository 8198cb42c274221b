"""Models from published effects: no case was trained on. Writes
internal/model/data/{alzheimers_effects,parkinsons,mesial_temporal_sclerosis}.json.

A linear discriminant: with healthy z ~ N(0, R) and patients' z ~ N(d, R),
ln(LR) = w'(z - d/2), w = R^-1 d. Effects d are the papers'; R is measured here
on healthy people (the shared OpenNeuro volumes, z against NOMIS, each data set
centred), because no full matrix is published.

Papers give d in SDs within a site. The program's z, at a site that is not
calibrated, divides by the spread between sites too, so d is divided by as much;
once a site is calibrated its z spreads wider than the model takes it to, and the
likelihood ratio errs to the side of 1.
"""
import csv
import json
import os

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal, norm

import common
import nomis
from common import rnd

SEED = 20240917
NORMS = os.path.join(nomis.SHARED, "norms")


def rows(path):
    with open(path) as f:
        return list(csv.DictReader(f))


def healthy():
    d = pd.read_csv(os.path.join(nomis.SHARED, "tables", "openneuro_volumes_with_age_sex.csv"))
    return d[d.age.between(18, 100) & d.sexM.notna() & d.EstimatedTotalIntraCranialVol.between(5e5, 3e6)].reset_index(drop=True)


def residuals(d, structures):
    """z of healthy people, centred within each data set, pulled in at 3.5 robust SDs."""
    z = pd.DataFrame({s: nomis.z(nomis.region(s), d[s].where(d[s] > 0), d.age, d.sexM, d.EstimatedTotalIntraCranialVol) for s in structures})
    z = z - z.groupby(d.dataset).transform("median")
    sd = (z.quantile(.75) - z.quantile(.25)) / 1.349
    return z.clip(-3.5 * sd, 3.5 * sd, axis=1).dropna()


def mirrored(structure):
    side, rest = structure.split("-", 1)
    return {"Left": "Right-", "Right": "Left-"}[side] + rest


def both_sides(structures):
    return sorted(set(structures) | {mirrored(x) for x in structures})


def correlations(z, structures):
    """Correlations of the structures, the same on both sides: z holds both, and
    the mean of the matrix and its mirror image is taken, for nothing is known
    that would make the sides differ."""
    r, names = np.corrcoef(z.values.T), list(z.columns)
    m = [names.index(mirrored(x)) for x in names]
    at = [names.index(x) for x in structures]
    return ((r + r[np.ix_(m, m)]) / 2)[np.ix_(at, at)]


def in_program_units(structures, d):
    return np.asarray(d) / np.hypot(1.0, [common.SITE_RATIO[nomis.region(x)] for x in structures])


def between_sites(h):
    """SD of the data sets' mean asymmetry under 60, sampling error (of a median,
    pi/2 s^2/n) taken off, and their number."""
    ai = asymmetry(h["Left-Hippocampus"], h["Right-Hippocampus"])[h.age < 60].dropna()
    by = ai.groupby(h.dataset)
    n = by.size()
    by_enough = n[n >= 15].index
    middle, spread = by.median()[by_enough], ((by.quantile(.75) - by.quantile(.25)) / 1.349)[by_enough]
    left = middle.var(ddof=1) - (np.pi / 2 * spread**2 / n[by_enough]).mean()
    return float(np.sqrt(max(left, 0.0))), len(by_enough)


def discriminant(structures, d, se, z, rng, shrink=False):
    """Coefficients with their covariance, from the effects' standard errors
    (taken as independent, which errs to the wide side) and a bootstrap of the
    correlations. With shrink, the coefficients are multiplied by
    1 - tr(R^-1 Var d) / (d'R^-1 d), the share of the observed distance that is
    not sampling error."""
    d, se = in_program_units(structures, d), in_program_units(structures, se)

    def solve(d, corr):
        w = np.linalg.solve(corr, d)
        return np.r_[-w @ d / 2, w]

    corr = correlations(z, structures)
    inv = np.linalg.inv(corr)
    kappa = max(0.0, 1 - np.trace(inv @ np.diag(se**2)) / (d @ inv @ d)) if shrink else 1.0
    b = kappa * solve(d, corr)
    draws, truths = [], []
    for _ in range(2000):
        truth = d + se * rng.standard_normal(len(d)), correlations(z.iloc[rng.integers(0, len(z), len(z))], structures)
        draws.append(kappa * solve(*truth))
        truths.append(truth)
    return {"b": b, "covariance": np.cov(np.array(draws).T), "corr": corr, "d": d, "truths": truths, "shrinkage": kappa,
            "stat": {"distance": rnd(np.sqrt(d @ inv @ d)), "auc_if_normal": rnd(implied_auc(b, d, corr)),
                     "auc_if_normal_ci95": [rnd(v) for v in np.percentile([implied_auc(b, *t) for t in truths], [2.5, 97.5])], "shrinkage": rnd(kappa)}}


def implied_auc(b, d, corr):
    """AUC of the score b if both groups are normal with the effects d."""
    return norm.cdf(b[1:] @ d / np.sqrt(2 * b[1:] @ corr @ b[1:]))


def effect_se(d, n1, n2):
    return np.sqrt((n1 + n2) / (n1 * n2) + d * d / (2 * (n1 + n2)))


def rates(b, d, corr, threshold):
    """Specificity and sensitivity of LR >= threshold if both groups are normal."""
    sd = np.sqrt(b[1:] @ corr @ b[1:])
    at = (np.log(threshold) - b[0]) / sd
    return norm.cdf(at), norm.sf(at - b[1:] @ d / sd)


def threshold(flag, limit, m):
    """A flag's rule with what the effects imply it costs and finds."""
    spec, sens = rates(m["b"], m["d"], m["corr"], limit)
    drawn = np.array([rates(m["b"], d, r, limit) for d, r in m["truths"]])
    ci = lambda x: [rnd(v) for v in np.percentile(x, [2.5, 97.5])]
    return {"flag": flag, "rule": "likelihood ratio >= %g" % limit, "specificity": rnd(spec), "specificity_ci95": ci(drawn[:, 0]),
            "sensitivity": rnd(sens), "sensitivity_ci95": ci(drawn[:, 1]), "basis": "if both groups are normal with the published effects"}


def oracle(model, structures, b):
    people = common.synthetic_people(6, np.random.default_rng(SEED))
    z = np.array([[common.row_z(s, q["volumes"][s], q["age"], q["male"], q["icv_mm3"]) for s in structures] for q in people])
    common.write_oracle(model, people, b[0] + z @ b[1:])


def features(structures, b):
    return [{"name": s, "reference": 0.0, "coefficient": float(w)} for s, w in zip(structures, b[1:])]


def matrix(m):
    return [[float(v) for v in r] for r in m]


def corr_card(structures, corr, n):
    return {"of": structures, "r": [[rnd(v, 3) for v in r] for r in corr], "people": int(n), "source": "healthy adults of 13 OpenNeuro data sets (CC0; median age 26), z against NOMIS, centred within each, the same on both sides"}


def alzheimers(h, rng):
    ad = {r["measure"]: r for r in rows(os.path.join(NORMS, "ad_vs_nc_zheng2023_adni.csv"))}
    # No effect of the inferior lateral ventricle is published with its spread. The lateral ventricles' in ADNI
    # (45.0 +- 27.5 ml in 100 controls, 59.3 +- 29.3 in 100 patients; Fonov, "Robust automatic segmentation and
    # characterization of lateral ventricle size in the ADNI cohort") stands for it: the horn's own is larger.
    ilv = (59.3 - 45.0) / np.sqrt((27.5**2 + 29.3**2) / 2)
    spec = [("Left-Hippocampus", float(ad["hippocampus_L"]["cohen_d"]), 263), ("Right-Hippocampus", float(ad["hippocampus_R"]["cohen_d"]), 263),
            ("Left-Amygdala", float(ad["amygdala_L"]["cohen_d"]), 263), ("Right-Amygdala", float(ad["amygdala_R"]["cohen_d"]), 263),
            ("Left-Inf-Lat-Vent", ilv, 100), ("Right-Inf-Lat-Vent", ilv, 100)]
    s = [a for a, _, _ in spec]
    d = np.array([b for _, b, _ in spec])
    z = residuals(h, both_sides(s))
    m = discriminant(s, d, [effect_se(x, n, n) for _, x, n in spec], z, rng)
    b, stat = m["b"], m["stat"]
    cap = np.log(50.0)
    common.write("alzheimers_effects.json", {
        "schema": "neuroscreen.model/1", "name": "alzheimers-effects", "version": "2", "condition": "alzheimers", "evidence": "published-effects", "kind": "linear",
        "age_years": [55, 90], "segmenter": "fs6", "log_lr_cap": float(cap), "intercept": float(b[0]), "features": features(s, b), "covariance": matrix(m["covariance"]), "thresholds": [],
        "card": {
            "purpose": "A second opinion beside the trained score: hippocampi, amygdalae and inferior lateral ventricles weighed by published group differences. It never sets a flag.",
            "trained_on": {"cohort": "none: effect sizes of ADNI groups", "n": 526, "cases": 263, "controls": 263, "age": "not in the table that was read; ADNI takes people of 55 to 90 years",
                           "sex": "not in the table that was read", "country": "United States, Canada", "scanner": "ADNI's, 1.5 and 3 T; FreeSurfer"},
            "method": "linear discriminant, effects in the program's units of z; ln(LR) capped at +-ln 50: groups of 263 and 100 say nothing of rarer values",
            "performance": dict(stat, validation="none on people; AUC is what the effects imply if both groups are normal, on FreeSurfer's volumes at a site that is not calibrated", subgroups="not examined: no person stands behind the model"),
            "effects": dict((a, rnd(x)) for a, x, _ in spec), "correlations": corr_card(s, m["corr"], len(z)),
            "limits": ["correlations are those of younger people", "effects are unadjusted for age and head size, z is adjusted", "the effect of the inferior lateral ventricles is that of the lateral ventricles", "ADNI's patients had probable Alzheimer's disease without biomarker proof"],
            "must_not_be_used_for": ["deciding whether a person has the condition, or ruling it out", "anyone under 55", "predicting conversion"],
            "source": "Zheng 2023 (PLOS, ADNI 263 against 263); Fonov, ADNI 100 against 100", "licence": "facts from papers", "acknowledgement": "",
        },
    })
    oracle("alzheimers-effects", s, b)
    print("alzheimers-effects", stat, dict(zip(["b0"] + s, np.round(b, 3))))


def parkinsons(h, rng):
    with open(os.path.join(nomis.SHARED, "tables", "enigma_pd_laansma2021.json")) as f:
        doc = json.load(f)
    key = {"left_putamen": "Left-Putamen", "right_putamen": "Right-Putamen", "left_amygdala": "Left-Amygdala", "left_thalamus": "Left-Thalamus"}
    e = doc["cohens_d_PD_minus_HC"]
    s = [key[k] for k in e]
    d = np.array(list(e.values()))
    z = residuals(h, both_sides(s))
    m = discriminant(s, d, [effect_se(x, doc["n_pd"], doc["n_hc"]) for x in d], z, rng, shrink=True)
    b, stat, cap, review = m["b"], m["stat"], np.log(2.0), threshold("review", 1.5, m)

    # The outside check, as it is: ds000245, FreeSurfer 6, 30 patients (15 of them hyposmic) and 15 controls.
    p = pd.read_csv(os.path.join(nomis.SHARED, "tables", "ds000245_PD_volumes.csv"))
    pz = np.column_stack([common.row_z(x, p[x], p.Age, p.male, p.EstimatedTotalIntraCranialVol) for x in s])
    score, y = b[0] + pz @ b[1:], p.PD.values
    outside = common.auc_ci(y, score, rng)
    for name, who in (("hyposmic_patients_against_controls", (p.PD == 0) | (p.hyposmia == 1)), ("other_patients_against_controls", (p.PD == 0) | (p.hyposmia == 0))):
        outside[name] = common.auc_ci(y[who], score[who], rng)
    common.write("parkinsons.json", {
        "schema": "neuroscreen.model/1", "name": "parkinsons", "version": "2", "condition": "parkinsons", "evidence": "experimental", "kind": "linear",
        "age_years": [40, 85], "segmenter": "fs6", "log_lr_cap": float(cap), "intercept": float(b[0]), "features": features(s, b), "covariance": matrix(m["covariance"]),
        "thresholds": [review],
        "card": {
            "purpose": "Experimental: how far the volumes lean towards the small average differences of people with Parkinson's disease. T1 volumetry is near chance for early disease; this does not detect it.",
            "trained_on": {"cohort": "none: effect sizes of ENIGMA-PD", "n": doc["n_pd"] + doc["n_hc"], "cases": doc["n_pd"], "controls": doc["n_hc"], "age": "patients 63.4 +- 9.8, controls 59.4 +- 12.3 years",
                           "sex": "women: 36 % of patients, 46 % of controls", "country": "19 sources world-wide", "scanner": "many, 1.5 and 3 T; FreeSurfer 5.3"},
            "method": "linear discriminant, effects in the program's units of z; coefficients multiplied by %.2f, the share of the squared distance that is not sampling error; ln(LR) capped at +-ln 2" % stat["shrinkage"],
            "performance": dict(stat, validation="AUC is what the effects imply if both groups are normal, on FreeSurfer's volumes at a site that is not calibrated (Hoehn-Yahr 4 to 5 would reach about .71)",
                                subgroups="not examined: no person stands behind the model, and the outside check is too small",
                                outside_check=dict(outside, cohort="ds000245, printed as it is; nothing was chosen by it")),
            "effects": dict(zip(s, [rnd(x) for x in d])), "correlations": corr_card(s, m["corr"], len(z)),
            "limits": ["group differences of 0.13 to 0.14 SD", "no brainstem, nigra or iron measure", "atypical parkinsonism not considered"],
            "must_not_be_used_for": ["deciding whether a person has the condition, or ruling it out", "screening", "telling Parkinson's disease from atypical parkinsonism", "anyone under 40 or over 85"],
            "source": doc["source"], "licence": "facts from a paper; outside check on CC0 data", "acknowledgement": "",
        },
    })
    oracle("parkinsons", s, b)
    print("parkinsons", stat, review, "ds000245", outside, dict(zip(["b0"] + s, np.round(b, 3))))


ASYMMETRY_MEAN, ASYMMETRY_SD = 1.6, 2.16  # as in internal/norm


def asymmetry(l, r):
    return 100 * (r - l) / (r + l)


def found(delta, r, sd):
    """Share of one side's patients whom the two flags find: asymmetry (towards
    that side's loss, in its SDs) and z normal about delta with correlation r."""
    limit = lambda k: k * ASYMMETRY_SD / sd
    review = norm.sf(limit(2) - delta[0])
    both = multivariate_normal([-delta[0], delta[1]], [[1, -r], [-r, 1]])
    return review, both.cdf([-limit(3), -1.64])


def mts(h, rng):
    eff = {(r["group"], r["Structure"]): r for r in rows(os.path.join(NORMS, "enigma_epilepsy_subvol.csv"))}
    o = pd.read_csv(os.path.join(nomis.SHARED, "tables", "oasis1_merged.csv"))
    o = o[~(o.CDR > 0) & o.LeftHippoVol.notna() & o.RightHippoVol.notna()]
    groups = {
        "openneuro under 60": asymmetry(h["Left-Hippocampus"], h["Right-Hippocampus"])[h.age < 60],
        "openneuro 60 and over": asymmetry(h["Left-Hippocampus"], h["Right-Hippocampus"])[h.age >= 60],
        "oasis1 under 60": asymmetry(o.LeftHippoVol, o.RightHippoVol)[o.Age < 60],
        "oasis1 60 and over, CDR 0": asymmetry(o.LeftHippoVol, o.RightHippoVol)[o.Age >= 60],
    }
    # Smaller side's z of the same people, for the specificity of "flagged".
    hz = pd.DataFrame({x: common.row_z(x, h[x], h.age, h.sexM, h.EstimatedTotalIntraCranialVol) for x in ("Left-Hippocampus", "Right-Hippocampus")})
    om, ot = (o["M/F"] == "M") * 1.0, o.eTIV * 1000.0
    oz = pd.DataFrame({"Left-Hippocampus": common.row_z("Left-Hippocampus", o.LeftHippoVol, o.Age, om, ot), "Right-Hippocampus": common.row_z("Right-Hippocampus", o.RightHippoVol, o.Age, om, ot)})
    measured, marks = {}, []
    for g, ai in groups.items():
        ai = ai.dropna()
        people = (h if g.startswith("openneuro") else o.assign(age=o.Age, sexM=om)).loc[ai.index]
        zz = (hz if g.startswith("openneuro") else oz).loc[ai.index]
        small = np.where(ai > ASYMMETRY_MEAN, zz["Left-Hippocampus"], zz["Right-Hippocampus"])
        off = (ai - ASYMMETRY_MEAN).abs() / ASYMMETRY_SD
        review, flagged = off > 2, (off > 3) & (small < -1.64)
        marks.append(pd.DataFrame({"review": review, "flagged": flagged, "age": people.age, "male": people.sexM}))
        r, f = int(review.sum()), int(flagged.sum())
        measured[g] = {"n": int(len(ai)), "mean": rnd(ai.mean(), 2), "sd": rnd(ai.std(ddof=1), 2), "robust_sd": rnd((ai.quantile(.75) - ai.quantile(.25)) / 1.349, 2),
                       "specificity_of_review": rnd(1 - r / len(ai)), "specificity_of_review_ci95": common.wilson(len(ai) - r, len(ai)),
                       "specificity_of_flagged": rnd(1 - f / len(ai)), "specificity_of_flagged_ci95": common.wilson(len(ai) - f, len(ai))}
    marks = pd.concat(marks, ignore_index=True)
    pooled = lambda names: float(np.sqrt(sum(measured[g]["n"] * measured[g]["robust_sd"] ** 2 for g in names) / sum(measured[g]["n"] for g in names)))
    sd = {"under_60": pooled(["openneuro under 60", "oasis1 under 60"]), "from_60": pooled(["openneuro 60 and over", "oasis1 60 and over, CDR 0"])}

    site_sd, sites = between_sites(h)

    sides_of = ["Left-Hippocampus", "Right-Hippocampus"]
    rlr = float(correlations(residuals(h, sides_of), sides_of)[0, 1])
    within = -np.sqrt((1 - rlr) / 2)  # correlation of (R-L) with L when both sides spread alike

    # Expected asymmetry of each side's sclerosis: ENIGMA's effects on NOMIS's volumes at 40 years, 1.5 l, both sexes.
    c = nomis.COEFFICIENTS
    def volume(region, d):
        mu = np.mean([-nomis.z(region, 0.0, 40.0, m, 1.5e6) for m in (0.0, 1.0)]) * np.sqrt(c[region]["mse"])
        return mu + d * np.sqrt(c[region]["mse"])
    get = lambda g, x: (float(eff[g, x]["d_icv"]), float(eff[g, x]["se_icv"]))
    sides, cap = {}, np.log(100.0)
    implied = {}
    for side, g, own, other in (("left", "tlemtsl", "Lhippo", "Rhippo"), ("right", "tlemtsr", "Rhippo", "Lhippo")):
        name = side.capitalize() + "-Hippocampus"
        # A site moves z and not asymmetry, so in the program's units both the effect and the correlation are less.
        unit = float(in_program_units([name], [1.0])[0])
        r = within * unit
        for band, s in sd.items():
            def solve(d_own, d_other, r):
                l, rr = (d_own, d_other) if side == "left" else (d_other, d_own)
                ai = asymmetry(volume("left-hippocampus", l), volume("right-hippocampus", rr))
                sign = 1 if side == "left" else -1  # asymmetry counted positive towards this side's loss
                delta = np.array([sign * (ai - ASYMMETRY_MEAN) / s, d_own * unit])
                w = np.linalg.solve(np.array([[1, r], [r, 1]]), delta)
                return np.r_[-w @ delta / 2, w], delta, ai
            (a, sa), (b, sb) = get(g, own), get(g, other)
            coef, delta, ai = solve(a, b, r)
            draws = [solve(a + sa * rng.standard_normal(), b + sb * rng.standard_normal(), np.clip(r + 0.03 * rng.standard_normal(), -.6, -.05))[0] for _ in range(2000)]
            sides[side + "_" + band] = {"intercept": float(coef[0]), "asymmetry": float(coef[1]), "smaller_side_z": float(coef[2]), "covariance": matrix(np.cov(np.array(draws).T)),
                                        "expected_asymmetry_percent": rnd(ai, 2), "effect": [rnd(v, 3) for v in delta]}
            if band == "under_60":
                implied[side] = found(delta, r, s)
            print("mts", side, band, np.round(coef, 2), "AI %.1f" % ai, implied[side])
    nl, nr, nc = int(eff["tlemtsl", "Lhippo"]["n_patients"]), int(eff["tlemtsr", "Rhippo"]["n_patients"]), int(eff["tlemtsl", "Lhippo"]["n_controls"])
    def counted(key, who):
        k, n = int((~marks.loc[who, key]).sum()), int(who.sum())
        return {"specificity": rnd(k / n), "specificity_ci95": common.wilson(k, n), "people": n}
    everybody = pd.Series(True, marks.index)
    subgroups = {g: {flag: counted(flag, who) for flag in ("review", "flagged")} for g, who in
                 (("women", marks.male == 0), ("men", marks.male == 1), ("under 60", marks.age < 60), ("60 and over", marks.age >= 60))}
    def rule(flag, text, i):
        return dict({"flag": flag, "rule": text}, **counted(flag, everybody), sensitivity=rnd((implied["left"][i] + implied["right"][i]) / 2),
                    basis="specificity counted on healthy people of all ages; sensitivity under 60, if patients are normal with the published effects")
    common.write("mesial_temporal_sclerosis.json", {
        "schema": "neuroscreen.model/1", "name": "mesial-temporal-sclerosis", "version": "3", "condition": "mesial_temporal_sclerosis", "evidence": "published-effects", "kind": "asymmetry",
        "age_years": [18, 100], "segmenter": "fs6", "log_lr_cap": float(cap),
        "asymmetry_sd_percent": {k: rnd(v, 3) for k, v in sd.items()}, "asymmetry_between_site_sd_percent": rnd(site_sd, 3), "sides": sides,
        "thresholds": [rule("review", "|asymmetry - 1.6 %| > 2 x 2.16 %", 0), rule("flagged", "|asymmetry - 1.6 %| > 3 x 2.16 % and the smaller side's z < -1.64", 1)],
        "card": {
            "purpose": "Likelihood ratio of one-sided hippocampal sclerosis, on either side, against health, from hippocampal asymmetry and both hippocampi's z, with the side.",
            "trained_on": {"cohort": "none: effect sizes of ENIGMA-Epilepsy (temporal lobe epilepsy with mesial temporal sclerosis)", "n": nl + nr + nc, "cases": nl + nr, "cases_left": nl, "cases_right": nr, "controls": nc,
                           "age": "of all epilepsies, means of the centres 26 to 40 years, weighted 34.4; controls 25 to 42, weighted 33.3", "sex": "women: 57 % of all patients, 53 % of controls",
                           "country": "24 centres in 14 countries", "scanner": "many, 1.5 and 3 T; FreeSurfer 5.3"},
            "method": "for each side a linear discriminant of asymmetry and that side's z, in the program's units of z; their mean, for the side is not known beforehand, shown as the smaller side's with the term side_not_known; asymmetry's spread measured on healthy people (%.1f %% under 60, %.1f %% from 60, where it is wider); ln(LR) capped at +-ln 100; interval from the effects' and correlation's errors, from the volumes' (both sides of a head err together; a segmenter's own errors also widen the score's spread within both groups, which draws the likelihood ratio towards 1) and from the sites', whose mean asymmetry differs by an SD of %.2f %% (%d data sets) where their hippocampi differ by 4 to 5 %%" % (sd["under_60"], sd["from_60"], site_sd, sites),
            "performance": {"validation": "none on patients here; published for FreeSurfer asymmetry: AUC .85 of sclerosis against other epilepsy (Rebsamen 2022), side right in 79 % (Azab 2015)",
                            "healthy_asymmetry": measured, "subgroups": subgroups, "correlation_left_right": rnd(rlr, 3)},
            "limits": ["T2 and FLAIR are not seen: sclerosis without volume loss is missed", "bilateral disease shows no asymmetry and is missed", "asymmetry is wider in old age and in neurodegeneration; neither is sclerosis",
                       "for a side that is known beforehand, as from seizures, the likelihood ratio is up to twice the one given, or nothing if it is the other side",
                       "against other epilepsies the likelihood ratio is smaller than against health"],
            "must_not_be_used_for": ["deciding whether a person has the condition, or ruling it out", "choosing a side for surgery", "anyone under 18"],
            "source": "Whelan 2018 (ENIGMA-Epilepsy; MICA-MNI/ENIGMA d66a7ef320a9, BSD-3); Dallas Heart Study PMC7964497 for the thresholds' spread", "licence": "facts from papers; healthy asymmetry from CC0 tables and OASIS-1 (summary statistics)",
            "acknowledgement": "",
        },
    })
    people = common.synthetic_people(12, np.random.default_rng(SEED + 1))
    scores = []
    for q in people:
        v = q["volumes"]
        ai, band, one = asymmetry(v["Left-Hippocampus"], v["Right-Hippocampus"]), "from_60", []
        for side, sign in (("left", 1), ("right", -1)):
            name, c = side.capitalize() + "-Hippocampus", sides[side + "_" + band]
            z = float(common.row_z(name, v[name], q["age"], q["male"], q["icv_mm3"]))
            one.append(c["intercept"] + c["asymmetry"] * sign * (ai - ASYMMETRY_MEAN) / rnd(sd[band], 3) + c["smaller_side_z"] * z)
        scores.append(np.logaddexp(*one) - np.log(2))
    common.write_oracle("mesial-temporal-sclerosis", people, scores)
    for g, m in measured.items():
        print("   ", g, m)


if __name__ == "__main__":
    people = healthy()
    alzheimers(people, np.random.default_rng(SEED))
    parkinsons(people, np.random.default_rng(SEED))
    mts(people, np.random.default_rng(SEED))
