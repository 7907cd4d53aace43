"""`moulin bench streaming` as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.bundles import BUNDLES
from tests.cli.command import MOULIN, TIMEOUT_SEC, eventually, moulin, moulin_here

MODEL = BUNDLES / "zipformer2-streaming"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "nobody"], "There is no target 'nobody'"),
        (["--streams", "4,many"], "Expected numbers of streams separated by commas for --streams, got '4,many'"),
        (["--streams", "0"], "Expected numbers of streams"),
        (["--sherpa-options", "fast"], "Expected NAME=VALUE separated by commas for --sherpa-options, got 'fast'"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_starts(arguments: list[str], message: str) -> None:
    done = moulin_here("bench", "streaming", "--model", MODEL, *arguments).expect(1)
    assert message in done.err
    assert done.out == ""


def test_an_offline_model_is_refused() -> None:
    done = moulin_here("bench", "streaming", "--model", BUNDLES / "zipformer2-offline").expect(1)
    assert "streaming" in done.err


def test_runs_are_printed_and_reported(tmp_path: Path) -> None:
    to = tmp_path / "results" / "streaming.json"
    command = ["--targets", "sherpa-onnx-server", "--streams", "1,2", "--seconds", "1", "--tries", "1", "--to", str(to)]
    done = moulin("bench", "streaming", "--model", MODEL, *command, "--sherpa-options", "max-batch-size=3").expect(0)
    header, *rows, summary = done.out.splitlines()
    assert json.loads(summary)["kind"] == "streaming"
    assert header.startswith("target")
    assert [row.split()[:2] for row in rows] == [["sherpa-onnx-server", "1"], ["sherpa-onnx-server", "2"]]
    report = json.loads(to.read_text())
    assert [run["streams"] for run in report["runs"]] == [1, 2]
    assert all(run["failures"] == 0 and run["latency_ms"]["p95"] > 0 for run in report["runs"])
    assert report["servers"]["sherpa-onnx-server"]["max-batch-size"] == "3"
    assert report["interrupted"] is False
    assert "largest" not in report
    assert "--to" not in report["command"]


@pytest.mark.slow
def test_ctrl_c_leaves_what_there_is(tmp_path: Path) -> None:
    to, log, streams = tmp_path / "streaming.json", tmp_path / "stdout", "1,1,1,1,1,1,1,1"
    arguments = [
        "--targets",
        "sherpa-onnx-server",
        "--streams",
        streams,
        "--seconds",
        "1",
        "--tries",
        "1",
        "--to",
        str(to),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [MOULIN, "bench", "streaming", "--model", str(MODEL), *arguments],
            stdout=out,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        assert eventually(lambda: len(log.read_text().splitlines()) == 2, TIMEOUT_SEC)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    finally:
        process.kill()
        process.wait()
    report = json.loads(to.read_text())
    assert report["interrupted"] is True
    assert len(report["runs"]) == len(log.read_text().splitlines()) - 2  # the header, and the line for scripts
