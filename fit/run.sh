#!/bin/sh
# Makes every coefficient file of the norms' shifts and the risk models from
# the shared data (NEUROSCREEN_SHARED_DATA, default ../shared/data beside the
# repository). The versions in requirements.txt reproduce the committed files.
set -eu
cd "$(dirname "$0")"
python="${PYTHON:-/usr/bin/python3}"
[ -n "${PYTHON:-}" ] || ../scripts/setup.sh fit
"$python" -c 'import numpy, scipy, pandas, sklearn' 2>/dev/null || {
	echo "fit: $python lacks numpy, scipy, pandas or scikit-learn: pip install -r fit/requirements.txt" >&2
	exit 1
}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$python" norms.py
"$python" shifts.py
"$python" effects.py
"$python" alzheimers.py
"$python" oracle_statistics.py
