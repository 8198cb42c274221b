#!/usr/bin/env bash
# Times the networks of a weights file (those of the program by default) in ONNX
# Runtime and PyTorch, installed into a folder of their own.
# Usage: scripts/compare.sh [FILE.weights]
set -euo pipefail
cd "$(dirname "$0")/.."

python=build/compare/bin/python
if [ ! -x $python ]; then
	python3 -m venv build/compare
	build/compare/bin/pip install --quiet torch onnx onnxruntime numpy
fi
exec $python bench/compare.py "${1:-internal/segment/weights/default.weights}"
