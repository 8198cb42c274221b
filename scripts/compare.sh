#!/usr/bin/env bash
# Times the networks of a weights file (those of the program by default) in ONNX
# Runtime and PyTorch, installed into a folder of their own.
# Usage: scripts/compare.sh [FILE.weights]
# Or the steps on a functional run in nilearn and nipy:
#        scripts/compare.sh --functional RUN.nii.gz TR
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --functional ]; then
	python=build/compare-functional/bin/python
	if [ ! -x $python ]; then
		python3 -m venv build/compare-functional
		build/compare-functional/bin/pip install --quiet nilearn "numpy<2.4" # nipy 0.6.1 needs an older one
		build/compare-functional/bin/pip install --quiet nipy || echo "nipy can't be installed here; motion is left out" >&2
	fi
	go build -o build/bench ./bench
	exec $python bench/compare_functional.py build/bench "$2" "$3"
fi

python=build/compare/bin/python
if [ ! -x $python ]; then
	python3 -m venv build/compare
	build/compare/bin/pip install --quiet torch onnx onnxruntime numpy
fi
exec $python bench/compare.py "${1:-internal/segment/weights/default.weights}"
