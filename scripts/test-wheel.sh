#!/usr/bin/env bash
# Builds a wheel, installs it with the newest dependencies in a fresh environment of each PYTHON, and tests what is
# installed there. Where numpy 2 is possible, it is there first and must stay. Says how long each step takes.
#
#   scripts/test-wheel.sh PYTHON...
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: scripts/test-wheel.sh PYTHON..." >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

step() {
    local name=$1 begin=$SECONDS
    shift
    "$@"
    echo "   $name: $((SECONDS - begin)) s" >&2
}

for python in "$@"; do
    echo "== $("$python" --version), the newest dependencies" >&2
    here=$folder/$("$python" -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
    step environment "$python" -m venv "$here"
    pip=("$here/bin/python" -m pip --quiet --disable-pip-version-check)
    [ -e "$folder"/*.whl ] || step wheel "${pip[@]}" wheel --no-deps --wheel-dir "$folder" .
    step numpy "${pip[@]}" install 'numpy>=2'
    before=$("$here/bin/python" -c 'import numpy; print(numpy.__version__)')
    step moulin "${pip[@]}" install "$(echo "$folder"/*.whl)[serve,hub]" pytest
    # Not this folder's pytest settings, nor its conftest.py: they are of the source tree. One cache for all: the
    # environments that moulin makes for Triton are alike.
    step tests env NUMPY_BEFORE="$before" XDG_CACHE_HOME="$folder/cache" "$here/bin/python" -P -m pytest -q -W error \
        --durations 5 -c /dev/null --rootdir tests/wheel --confcutdir tests/wheel --import-mode importlib \
        -p no:cacheprovider tests/wheel
done
