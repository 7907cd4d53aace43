from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "scripts" / "soak.py"


@pytest.mark.slow
@pytest.mark.triton
def test_a_minute_of_kills_and_stops_costs_no_word(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(SOAK), "--minutes", "1", "--every-sec", "3", "--seed", "7", "--to", str(report)]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=600, check=False)
    found = json.loads(report.read_text())
    assert found["requests"] > 20
    assert found["streams"] > 20
    assert found["disturbances"] > 1
    assert (found["wrong"], found["no answer"], found["unclear errors"]) == (0, 0, 0), found["examples"]
    assert not found["tracebacks in the log"], "\n\n".join(found["tracebacks in the log"])
    assert not found["Triton's exit timeout expired"]
