#!/usr/bin/env bash
# Compiles every kernel of the table with each Triton that is supported, and runs the kernels' tests
# on what was compiled for sm_90. CI does this with the pinned Triton only.
#   tests/tools/check_tritons.sh [VERSION ...]    after `make test`, about 5 minutes a version
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
versions=("$@")
[ $# -gt 0 ] || versions=(3.6.0 3.7.1 3.9.0)

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in "${versions[@]}"; do
  "$python" -m pip install --quiet --no-deps --target "$folder/$version" "triton==$version"
  export PYTHONPATH="$folder/$version" TRITON_CACHE_DIR="$folder/cache"
  "$python" -m tests.tools.ahead_of_time >"$folder/facts"
  if grep '"spilled": [1-9]' "$folder/facts"; then
    echo "Triton $version: these kernels spill" >&2
    exit 1
  fi
  echo "Triton $version: $(wc -l <"$folder/facts") kernels compiled, none spills"
  "$python" -m pytest -q tests/kernels/test_kernels.py tests/kernels/test_partial_sums.py -k sm_90
done
