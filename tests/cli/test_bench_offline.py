"""`moulin bench offline`: all at once, and a request each."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from moulin.launch.server import TritonServer
from tests.bundles import BUNDLES
from tests.cli.command import MOULIN, TIMEOUT_SEC, eventually, moulin, moulin_here


def test_rounds_of_all_recordings(tmp_path: Path) -> None:
    to, page = tmp_path / "x.json", tmp_path / "x.html"
    done = moulin("bench", "offline", "--targets", "moulin", "--rounds", 2, "--to", to, "--to", page).expect(0)
    assert done.out.startswith("moulin ")
    assert "WER 6.43%" in done.out
    assert "round 2 of 2" in done.err
    (target,) = json.loads(to.read_text())["targets"]
    assert len(target["seconds"]) == 2
    assert sum(it["errors"] for it in target["utterances"].values()) == target["word_errors"] == 9
    again = moulin("bench", "compare", to, to).expect(0)
    assert "cannot be said (2 and 2 rounds)" in again.out


@pytest.mark.needs("torch")
def test_a_checkpoint_by_another_method(tmp_path: Path) -> None:
    to = tmp_path / "x.json"
    model = BUNDLES / "conformer-offline"
    arguments = ["--engine", "torch", "--method", "modified_beam_search", "--targets", "moulin", "--rounds", 1]
    moulin("bench", "offline", "--model", model, *arguments, "--to", to).expect(0)
    report = json.loads(to.read_text())
    assert report["decoding"] == {"method": "modified_beam_search"}
    assert report["targets"][0]["words"] == 140


def test_ctrl_c_leaves_the_rounds_that_there_are(tmp_path: Path) -> None:
    to, log = tmp_path / "x.json", tmp_path / "stderr"
    command = [MOULIN, "bench", "offline", "--targets", "moulin", "--rounds", "100000", "--to", str(to)]
    with log.open("wb") as err, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True) as process:
        assert eventually(lambda: "round 2 of" in log.read_text(), TIMEOUT_SEC)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=TIMEOUT_SEC)
    assert process.returncode == 130
    assert out.startswith("moulin ")
    report = json.loads(to.read_text())
    assert report["interrupted"] is True
    assert len(report["targets"][0]["seconds"]) >= 2


@pytest.mark.triton
def test_requests_to_a_server_that_runs(server: TritonServer, tmp_path: Path) -> None:
    to, lines = tmp_path / "x.json", tmp_path / "x.jsonl"
    address = f"triton-grpc={server.grpc_url}"
    arguments = ["--targets", address, "--workers", "1,2", "--seconds", 1, "--to", to, "--to", lines]
    done = moulin("bench", "offline", *arguments).expect(0)
    header, *rows, summary = done.out.splitlines()
    assert json.loads(summary)["kind"] == "requests"
    assert header.startswith("target")
    assert [row.split()[:2] for row in rows] == [[address, "1"], [address, "2"]]
    report = json.loads(to.read_text())
    assert report["model"] is None
    assert [run["workers"] for run in report["runs"]] == [1, 2]
    for run in report["runs"]:
        assert run["failures"] == 0
        assert run["triton"]["requests"] == run["requests_sent"]
        assert run["server_cpu_sec"] is None
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(records) == sum(run["requests_sent"] for run in report["runs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "1", "--rate", "1"], "Expected --workers or --rate, got both"),
        (["--find-max"], "Expected --rate with --find-max"),
        (["--evenly"], "Expected --rate with --evenly"),
        (["--rate", "fast"], "Expected requests a second separated by commas for --rate, got 'fast'"),
        (["--rate", "0"], "Expected a rate above 0"),
        (["--workers", "0"], "Expected numbers of workers separated by commas for --workers, got '0'"),
        (["--workers", "1", "--targets", "sherpa-onnx-batch4"], "There is no target 'sherpa-onnx-batch4'"),
        (["--beam", "0"], "Expected a beam of 1 to"),
    ],
)
def test_what_cannot_be_measured_is_said_first(arguments: list[str], message: str) -> None:
    done = moulin_here("bench", "offline", *arguments).expect(1)
    assert message in done.err
    assert done.out == ""
