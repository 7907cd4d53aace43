"""Writes deploy/constraints-3.X.txt: the newest releases that go together, for images and for `make test`.

    python scripts/renew-constraints.py PYTHON...      one file for the version of each PYTHON

pip resolves, and installs nothing. PyTorch is left out: `make test` pins it, and images choose one for their GPU.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Everything that an image or a test takes, but what brings PyTorch (torch, lhotse) and the other ONNX Runtime (gpu).
EXTRAS = "serve,mic,hub,bench,tracing,demo,rtx,openvino,lint"
BESIDE = (
    *("hypothesis", "httpx", "playwright", "openai", "pytest", "pytest-xdist", "pyyaml", "tritonclient[http]"),
    *("grpcio-tools", "kubernetes-validate", "whisper-normalizer", "pyarrow", "pyarrow<22; python_version < '3.13'"),
    *("axe-playwright-python", "deepgram-sdk", "check-jsonschema"),
)
LEFT_OUT = re.compile(r"^(moulin|torch|triton|nvidia-(?!pytriton).*|cuda-.*)$")


def main(pythons: list[str]) -> None:
    for python in pythons:
        version = _ask([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
        file = ROOT / "deploy" / f"constraints-{version}.txt"
        lines = [f"# Written by `make constraints`, which renews it; for Python {version}."]
        file.write_text("\n".join([*lines, *_resolved(python), ""]))
        print(f"{file.relative_to(ROOT)}: {len(file.read_text().splitlines()) - 1} packages")


def _resolved(python: str) -> list[str]:
    """`name==release` of every package that would be installed in an empty environment."""
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    report = json.loads(_ask([*command, f"{ROOT}[{EXTRAS}]", *BESIDE]))
    found = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"]
        for item in report["install"]
    }
    return [f"{name}=={found[name]}" for name in sorted(found) if not LEFT_OUT.match(name)]


def _ask(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
