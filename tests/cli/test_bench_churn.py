"""`moulin bench churn` as a person runs it, on a CPU and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moulin.evaluate import stream_engines
from tests.bundles import BUNDLES
from tests.cli.command import moulin_here

MODEL = BUNDLES / "zipformer2-streaming"
FEW = ["--streams", 40, "--open", 8, "--longest-sec", 0.8]


def test_streams_that_come_and_go(tmp_path: Path) -> None:
    to, page = tmp_path / "x.json", tmp_path / "x.md"
    done = moulin_here("bench", "churn", "--model", MODEL, *FEW, "--to", to, "--to", page).expect(0)
    assert done.out.startswith("40 streams in ")
    assert "0 differ, in 0.00% of the characters" in done.out
    assert "4 of 4 quarters" in done.err
    report = json.loads(to.read_text())
    assert report["command"].startswith("moulin bench churn --model")
    (run,) = report["churn"]
    assert (run["streams"], run["ended"] + run["vanished"], run["faults"]) == (40, 40, [])
    assert run["samples"] > 0
    assert len(run["quarters_mib"]) == 4
    assert "faults" in page.read_text()


def test_faults_make_the_exit_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory that grows by a gigabyte a look."""
    grown = iter(range(0, 9000, 1000))
    monkeypatch.setattr(stream_engines, "memory_in_use", lambda _: {"resident": float(next(grown))})
    to = tmp_path / "x.json"
    done = moulin_here("bench", "churn", "--model", MODEL, *FEW, "--to", to).expect(1)
    assert "Expected resident to stay at" in done.err
    assert len(json.loads(to.read_text())["churn"][0]["faults"]) == 1


def test_help_has_an_example() -> None:
    assert "Example: moulin bench churn --size" in moulin_here("bench", "churn", "--help").expect(0).out
