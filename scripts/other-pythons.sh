#!/usr/bin/env bash
# Prints a Python 3.11, 3.12, 3.13 and 3.14 of this machine that has venv, each of those that PYTHON is not.
set -euo pipefail
own=$("${1:?usage: scripts/other-pythons.sh PYTHON}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
shopt -s nullglob
for version in 3.11 3.12 3.13 3.14; do
    [ "$version" != "$own" ] || continue
    for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python"$version" "python$version" "/usr/bin/python$version"; do
        if "$python" -c "import sys, venv, ensurepip; assert '%d.%d' % sys.version_info[:2] == '$version'" 2>/dev/null; then
            echo "$python"
            break
        fi
    done
done
