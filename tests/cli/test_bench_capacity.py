"""`moulin bench capacity` as a person runs it, on a CPU and a tiny model."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.bundles import BUNDLES
from tests.cli.command import MOULIN, TIMEOUT_SEC, eventually, moulin_here

MODEL = BUNDLES / "zipformer2-streaming"


def test_the_largest_number_of_streams_is_searched(tmp_path: Path) -> None:
    to, page = tmp_path / "x.json", tmp_path / "x.html"
    command = ["--streams", "1,2", "--seconds", 2, "--p95-ms", 5000, "--to", to, "--to", page]
    done = moulin_here("bench", "capacity", "--model", MODEL, *command).expect(0)
    header, *rows, found, summary = done.out.splitlines()
    assert json.loads(summary)["kind"] == "capacity"
    assert header.split()[:3] == ["streams", "held", "p50"]
    assert [row.split()[:2] for row in rows] == [["1", "yes"], ["2", "yes"]]
    assert found == "2 real-time streams with a p95 latency under 5000 ms"
    assert "2 streams …" in done.err
    report = json.loads(to.read_text())
    assert report["command"].startswith("moulin bench capacity --model")
    assert (report["kind"], report["largest"], report["slots"], report["device"]) == ("capacity", 2, 2, "cpu")
    assert [run["streams"] for run in report["capacity"]] == [1, 2]
    assert all(run["chunk_latency_ms"]["p95"] > 0 and run["memory_mib"]["resident"] > 1 for run in report["capacity"])
    assert "real-time streams" in page.read_text()


@pytest.mark.needs("torch")
def test_steps_of_a_checkpoint(tmp_path: Path) -> None:
    to = tmp_path / "x.json"
    options = ["--steps", "--batches", "1,3", "--engine", "torch", "--plain", "--audio", "float32", "--to", to]
    done = moulin_here("bench", "capacity", "--model", MODEL, *options).expect(0)
    rows = [row.split()[2] for row in done.out.splitlines() if row.startswith("zipformer2 fp32")]
    assert rows == ["1", "3", "1", "3"]
    report = json.loads(to.read_text())
    assert [step["batch"] for step in report["steps"]] == [1, 3, 1, 3]
    assert all(0 < step["p50_ms"] <= step["p95_ms"] and "gpu_ms" not in step for step in report["steps"])
    assert "largest" not in report


def test_ctrl_c_leaves_the_runs_that_there_are(tmp_path: Path) -> None:
    to, log = tmp_path / "x.json", tmp_path / "stderr"
    options = ["--streams", "1,512", "--p95-ms", "9000", "--seconds", "0.5", "--to", str(to)]
    command = [MOULIN, "bench", "capacity", "--model", str(MODEL), *options]
    with log.open("wb") as err, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True) as process:
        assert eventually(lambda: "\n2 streams" in log.read_text(), TIMEOUT_SEC)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_SEC)
    assert process.returncode == 130
    assert "Traceback" not in log.read_text()
    report = json.loads(to.read_text())
    assert report["interrupted"] is True
    assert report["capacity"][0]["streams"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streams", "9"], "Expected LOWEST,HIGHEST for --streams, got '9'"),
        (["--streams", "9,2"], "Expected LOWEST,HIGHEST"),
        (["--steps", "--batches", "0"], "Expected numbers of streams in a step"),
        (["--plain"], "Expected --plain with --steps"),
        (["--size", "zipformer2-66m"], "Expected --model or --size, got both"),
    ],
)
def test_what_cannot_be_measured_is_said_first(arguments: list[str], message: str) -> None:
    done = moulin_here("bench", "capacity", "--model", MODEL, *arguments).expect(1)
    assert message in done.err
    assert done.out == ""


def test_an_offline_model_is_refused() -> None:
    assert "streaming" in moulin_here("bench", "capacity", "--model", BUNDLES / "zipformer2-offline").expect(1).err


def test_help_has_an_example() -> None:
    assert "Example: moulin bench capacity --size" in moulin_here("bench", "capacity", "--help").expect(0).out
