#!/usr/bin/env bash
# Installs with apt what the Python packages do not bring along: the shared library of Python, which Triton's python
# backend loads. Says nothing and does nothing where it is there.
set -euo pipefail
python=${1:?usage: system-packages.sh PYTHON}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if "$python" - <<'PY'
import ctypes, pathlib, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
if not pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/", name).exists():
    ctypes.CDLL(name)
PY
then
    exit 0
fi 2>/dev/null

package=libpython$version
echo "Installing $package, which Triton's python backend needs" >&2
if ! command -v apt-get >/dev/null; then
    echo "No apt-get here: install the shared library of Python $version (libpython$version.so.1.0) yourself" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "$package"
