from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROLLING = Path(__file__).parents[1] / "scripts" / "rolling.py"


@pytest.mark.slow
@pytest.mark.triton
def test_a_small_cluster_is_replaced_under_load(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    numbers = ["--streams", "6", "--uploads", "1", "--servers", "2", "--clips", "1", "--settle-sec", "4"]
    # On a machine with other work pauses say nothing.
    bounds = ["--pause-sec", "60", "--stop-pause-sec", "60"]
    subprocess.run(
        [sys.executable, str(ROLLING), *numbers, *bounds, "--to", str(report)],
        stdout=subprocess.DEVNULL,
        timeout=900,
        check=False,
    )
    found = json.loads(report.read_text())
    assert found["faults"] == []
    assert found["counts"]["streams moved"] > 0
    assert found["counts"]["streams that did not move"] > 0
    assert found["counts"]["uploads right"] > 0
