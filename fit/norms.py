"""Brings the published tables of the norms into internal/norm/data, as they are."""
import os
import shutil

import nomis

OUT = os.path.join(nomis.OUT, "internal", "norm", "data")

if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    for there, here in (("nomis_aseg_coefficients.csv",) * 2, ("nomis_aseg_bigregions_coefficients.csv",) * 2, ("pcn_between_site_sd.csv", "between_site_sd.csv")):
        shutil.copyfile(os.path.join(nomis.SHARED, "norms", there), os.path.join(OUT, here))
