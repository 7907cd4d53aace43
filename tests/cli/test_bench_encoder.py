"""`moulin bench encoder` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bundles import BUNDLES

from .command import moulin, moulin_here

MODEL = BUNDLES / "zipformer2-offline"
needs_torch = pytest.mark.needs("torch")


@needs_torch
def test_runners_side_by_side(tmp_path: Path) -> None:
    to = tmp_path / "results" / "encoder.json"
    command = ["--runners", "onnxruntime:int8,torch", "--batches", "1,3", "--frames", "100"]
    done = moulin_here(
        "bench", "encoder", "--model", MODEL, *command, "--rounds", 1, "--seconds", 0, "--to", to
    ).expect(0)
    header, *rows, summary = done.out.splitlines()
    assert json.loads(summary)["kind"] == "encoder"
    assert header.split() == ["batch", "onnxruntime:int8", "ms", "QPS", "torch", "ms", "QPS"]
    assert [row.split()[0] for row in rows] == ["1", "3"]
    assert all(float(figure) > 0 for row in rows for figure in row.split())
    report = json.loads(to.read_text())
    assert (report["frames"], report["device"], report["model"]["name"]) == (100, "cpu", "zipformer2-offline")
    runs = [(run["runner"], run["batch"]) for run in report["runs"]]
    assert runs == [(name, batch) for batch in (1, 3) for name in ("onnxruntime:int8", "torch")]
    assert all(run["calls"] == 1 and run["qps"] > 0 for run in report["runs"])
    assert "torch" in report["versions"]
    assert report["on_device"] is False


@needs_torch
def test_a_published_size(tmp_path: Path) -> None:
    to = tmp_path / "encoder.json"
    options = ["--batches", "1", "--frames", "50", "--rounds", 1, "--seconds", 0, "--to", to]
    done = moulin_here("bench", "encoder", "--size", "zipformer2-23m", "--runners", "torch", *options).expect(0)
    assert done.err == "Writing a model of the size zipformer2-23m …\n"
    assert json.loads(to.read_text())["model"]["name"] == "zipformer2-23m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", MODEL, "--size", "conformer-77m"], "Expected --model or --size, got both"),
        pytest.param(["--size", "conformer-7b"], "There is no size 'conformer-7b'", marks=needs_torch),
        (["--batches", "1,x"], "Expected numbers of utterances separated by commas for --batches, got '1,x'"),
        (["--model", MODEL, "--runners", "torch:int4"], "Expected a runner as NAME or NAME:PRECISION, got"),
        (["--model", MODEL, "--runners", "tensorrt"], "Expected a GPU cuda, "),
        pytest.param(["--model", MODEL, "--runners", "gpu"], "The runner gpu runs on a GPU only", marks=needs_torch),
        (["--model", BUNDLES / "lstm-streaming"], "Expected an offline model, got the streaming lstm"),
        (["--choose"], "Expected --choose with --model, and without --runners and --on-device"),
        (["--choose", "--model", MODEL, "--runners", "openvino"], "Expected --choose with --model, and without"),
        (["--choose", "--model", MODEL, "--device", "cuda"], "Expected --choose on the CPU, got --device cuda"),
    ],
)
def test_what_cannot_be_measured(arguments: list[object], message: str) -> None:
    done = moulin_here("bench", "encoder", *arguments).expect(1)
    assert message in done.err
    assert done.out == ""


def test_help_has_an_example() -> None:
    assert "Example: moulin bench encoder --size" in moulin("bench", "encoder", "--help").expect(0).out


@pytest.mark.needs("openvino")
def test_what_is_chosen_is_what_auto_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = ["--frames", "200", "--rounds", 1, "--seconds", 0]
    done = moulin_here("bench", "encoder", "--model", MODEL, "--choose", *options).expect(0)
    header, row, _summary = done.out.splitlines()
    assert header.split()[1] == "onnxruntime:fp32"
    assert "openvino:fp32" in header
    (file,) = (tmp_path / "moulin" / "engines-on-cpu").iterdir()
    kept = json.loads(file.read_text())
    chosen = f"{kept['engine']} in {kept['precision']}"
    assert done.err.splitlines()[-1] == f"--engine auto runs zipformer2-offline on {chosen} from now on: {file}"
    assert len(kept["cpu_ms"]) == (len(row.split()) - 1) / 2
    facts = json.loads(moulin_here("inspect", MODEL, "--json").expect(0).out)
    assert facts["auto_engine"] == f"{chosen}, measured on this machine"
    assert facts["cpu_engines"].startswith("onnxruntime in fp32, openvino in fp32")
