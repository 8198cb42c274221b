"""Segmenter shifts: where healthy people measured by other FreeSurfer runs lie
against NOMIS. Writes internal/norm/data/segmenter_*.json (summary statistics
only).

fs7: eleven OpenNeuro data sets. A data set is one site, so n counts data sets:
the mean is that of their medians, and sites, not people, limit its precision. Of
it is kept what the mean is worth beside how far structures lie off at all:
t2 / (t2 + s2 / n), t2 the mean square of mean_z over the label map's structures,
s2 the variance of the data sets' medians, of both sides together.
neuroscreen: the same, for the network learnt FreeSurfer's labels and nobody has
measured healthy people with it.
oasis1: the FreeSurfer run behind OASIS-1's hippocampi, at 60 and over, CDR 0.
"""
import json
import os

import numpy as np
import pandas as pd

import nomis

OUT = os.path.join(nomis.OUT, "internal", "norm", "data")


def write(name, doc):
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, name), "w") as f:
        json.dump(doc, f, indent=1, sort_keys=True)
        f.write("\n")


def volumes(columns):
    """Columns that hold a volume the norm knows, as (column, FreeSurfer name, region)."""
    for c in columns:
        reg = nomis.region(c)
        if reg and "thickness" not in reg and "surfarea" not in reg:
            yield c, c.split(":")[-1], reg


def fs7():
    d = pd.read_csv(os.path.join(nomis.SHARED, "tables", "openneuro_volumes_with_age_sex.csv"))
    d = d[d.fs.eq("FS7-ish") & d.age.between(18, 100) & d.sexM.notna() & d.EstimatedTotalIntraCranialVol.between(5e5, 3e6)]
    structures, medians = {}, {}
    for col, name, reg in volumes(d.columns):
        ok = d[d[col] > 0]
        z = pd.Series(nomis.z(reg, ok[col].values, ok.age.values, ok.sexM.values, ok.EstimatedTotalIntraCranialVol.values), ok.index)
        by = z.groupby(ok.dataset)
        if by.ngroups < 5:
            continue
        # Within a data set, the spread from the quartiles: failed segmentations are in these tables.
        spread = by.apply(lambda x: (x.quantile(.75) - x.quantile(.25)) / 1.349)
        w, medians[name] = by.size(), by.median()
        structures[name] = {
            "n": int(by.ngroups), "n_sd": int(len(z)),
            "mean_z": round(float(by.median().mean()), 4),
            "sd_z": round(float(np.sqrt((w * spread**2).sum() / w.sum())), 4),
        }
    own = [s for s in structures if s.startswith(("Left-", "Right-")) or s in ("3rd-Ventricle", "4th-Ventricle", "Brain-Stem")]
    t2 = np.mean([structures[s]["mean_z"] ** 2 for s in own])
    for name, s in structures.items():
        sides = [name] + [o for o in medians if o in (name.replace("Left-", "Right-"), name.replace("Right-", "Left-"),
                                                      name.replace("lh", "rh", 1), name.replace("rh", "lh", 1)) and o != name]
        s2 = np.mean([medians[o].var() for o in sides])
        s["kept"] = round(float(t2 / (t2 + s2 / s["n"])), 4)
    shift = {
        "schema": "neuroscreen.shift/1", "name": "fs7-openneuro", "version": "2", "layer": "segmenter", "segmenter": "fs7",
        "source": "FreeSurfer 7 volumes of %d healthy adults (median age %.0f) in %d CC0 OpenNeuro data sets: %s"
                  % (len(d), d.age.median(), d.dataset.nunique(), ", ".join(sorted(d.dataset.unique()))),
        "structures": structures,
    }
    write("segmenter_fs7.json", shift)
    write("segmenter_neuroscreen.json", shift | {
        "name": "neuroscreen-as-fs7", "segmenter": "neuroscreen", "measured_with": "fs7",
        "source": "not measured: the network learnt FreeSurfer's labels and is taken to differ from the norm as FreeSurfer 7 does (%s@%s), "
                  "until healthy people are measured with it" % (shift["name"], shift["version"]),
    })


def oasis1():
    d = pd.read_csv(os.path.join(nomis.SHARED, "tables", "oasis1_merged.csv"))
    d = d[(d.Age >= 60) & (d.CDR == 0) & d.LeftHippoVol.notna() & d.RightHippoVol.notna()]
    d = d.assign(person=d.ID.str[:9]).drop_duplicates("person")
    structures = {}
    for col, name in (("LeftHippoVol", "Left-Hippocampus"), ("RightHippoVol", "Right-Hippocampus")):
        # The table's eTIV is in cm3.
        z = nomis.z(nomis.region(name), d[col].values, d.Age.values, (d["M/F"] == "M").values * 1.0, d.eTIV.values * 1000.0)
        structures[name] = {"n": int(len(z)), "mean_z": round(float(z.mean()), 4), "sd_z": 1.0}
    # The spread stays the norm's: its excess at this age (1.15 left, 1.03 right) is as well explained by old age,
    # which NOMIS gives the spread of the young.
    write("segmenter_oasis1.json", {
        "schema": "neuroscreen.shift/1", "name": "oasis1", "version": "1", "layer": "segmenter", "segmenter": "oasis1",
        "source": "OASIS-1, %d people of 60 and over with CDR 0" % len(d),
        "structures": structures,
    })


if __name__ == "__main__":
    fs7()
    oasis1()
