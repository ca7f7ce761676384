#!/bin/sh
# Measure every GPU path against its ceiling, in one call: sh benchmarks/gpu.sh [--only WORD] [--out FILE.md]
cd "$(dirname "$0")/.." || exit
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.gpu "$@"
