#!/usr/bin/env bash
# Compiles every kernel of the table with each Triton that is supported, and runs the kernels' tests
# on the compiled PTX of sm_90. CI does the same with the pinned Triton only.
#   tests/check_tritons.sh [VERSION ...]      in an environment that has the package and its tests
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
for version in "${@:-3.6.0 3.7.1 3.9.0}"; do
  for one in $version; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$PYTHON" -m pip install --quiet --no-deps --target "$folder" "triton==$one"
    export PYTHONPATH="$folder${EXTRA_PYTHONPATH:+:$EXTRA_PYTHONPATH}" TRITON_CACHE_DIR="$folder/cache"
    "$PYTHON" tests/ahead_of_time.py | awk '
      { print > "'"$folder"'/facts" } /"spilled": [1-9]/ { spills++; print }
      END { print NR " kernels compiled, " spills + 0 " of them spill"; exit spills > 0 || NR == 0 }'
    head -1 "$folder/facts"
    "$PYTHON" -m pytest -q tests/test_kernels.py -k sm_90
  done
done
