#!/usr/bin/env bash
# Builds a wheel, installs it with the newest dependencies in a fresh environment of each PYTHON, and tests what is
# installed there. Where numpy 2 is possible, it is there first and must stay.
#
#   scripts/test-wheel.sh PYTHON...
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: scripts/test-wheel.sh PYTHON..." >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for python in "$@"; do
    echo "== $("$python" --version), the newest dependencies" >&2
    here=$folder/$("$python" -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
    "$python" -m venv "$here"
    pip=("$here/bin/python" -m pip --quiet --disable-pip-version-check)
    [ -e "$folder"/*.whl ] || "${pip[@]}" wheel --no-deps --wheel-dir "$folder" .
    "${pip[@]}" install 'numpy>=2'
    before=$("$here/bin/python" -c 'import numpy; print(numpy.__version__)')
    "${pip[@]}" install "$(echo "$folder"/*.whl)[serve,hub]" pytest
    # Not this folder's pytest settings, nor its conftest.py: they are of the source tree. One cache for all: the
    # environments that moulin makes for Triton are alike.
    NUMPY_BEFORE=$before XDG_CACHE_HOME=$folder/cache "$here/bin/python" -P -m pytest -q -W error \
        -c /dev/null --rootdir tests/wheel --confcutdir tests/wheel --import-mode importlib -p no:cacheprovider tests/wheel
done
