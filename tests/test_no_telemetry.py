"""Data of moulin's processes stays on the machine: ONNX Runtime reports nothing to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles import BUNDLES

_CODE = """
import sys
import moulin
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def test_a_session_leaves_no_database_of_usage_data(tmp_path: Path) -> None:
    decoder = next((BUNDLES / "zipformer2-offline").glob("decoder*.onnx"))
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environ |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", _CODE, str(decoder)], env=environ, check=True)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(("given", "kept"), [(None, "1"), ("0", "0")])
def test_a_setting_of_the_users_holds(given: str | None, kept: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    if given is not None:
        environ["ORT_DISABLE_TELEMETRY"] = given
    code = "import os, moulin; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == kept
