"""`moulin trt` as a person runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moulin.demo.files import DEMO_MODEL
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import install

from .command import moulin, moulin_here


def test_a_dry_run_says_what_would_be_built(tmp_path: Path) -> None:
    model = BUNDLES / "zipformer2-offline"
    done = moulin("trt", "build", model, "--to", tmp_path / "engines", "--max-batch", 4, "--dry-run").expect(0)
    assert "TensorRT takes the encoder of zipformer2-offline: " in done.err
    assert done.out.startswith("trtexec \\\n  --onnx=encoder.onnx")
    assert "--maxShapes=x:4x12030x80,x_lens:4\n" in done.out  # 120.3 s: its table of 40 s is not needed
    assert not (tmp_path / "engines").exists()


def test_an_engine_is_built_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for TensorRT."""
    tensorrt = install(monkeypatch, tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr("moulin.tensorrt_engine.build.this_gpu", lambda _index: "NVIDIA H200, 9.0")
    options = ["--precision", "bf16", "--max-batch", 2, "--max-seconds", 3]
    done = moulin_here("trt", "build", BUNDLES / "conformer-offline", *options).expect(0)
    plan = Path(done.out.removesuffix("\n"))
    assert plan.is_file()
    assert plan.parent == tmp_path / "cache" / "moulin" / "engines" / "conformer-offline"
    assert "Building it with TensorRT 10.13.2 for NVIDIA H200, 9.0 ..." in done.err
    assert "It differs from ONNX Runtime by 0." in done.err
    assert moulin_here("trt", "build", BUNDLES / "conformer-offline", *options).expect(0).out == done.out
    assert tensorrt.builds == 1


SAME: dict[str, tuple[list[object], list[object]]] = {
    "defaults": ([], []),
    "limits": (["--max-batch", 3, "--max-seconds", 20], ["--max-batch", 3, "--max-audio-sec", 20]),
    "precision": (["--precision", "bf16"], ["--precision", "bf16"]),
    "workspace": (["--workspace-gib", 2], []),
}
"""Options of `trt build`, and of the service that looks for the same engine."""


@pytest.mark.parametrize(
    ("model", "case"),
    [
        *((model, case) for model in ("conformer-offline", "lstm-streaming") for case in SAME),
        ("zipformer2-offline/epoch-1.pt", "defaults"),
    ],
)
def test_the_service_finds_the_engine(model: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `trt build` built into the cache is what `repo build` and `serve` look for, and nothing is built again."""
    tensorrt = install(monkeypatch, tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr("moulin.tensorrt_engine.build.this_gpu", lambda _index: "NVIDIA H200, 9.0")
    monkeypatch.setattr("moulin.tensorrt_engine.drift.measure_drift", lambda *_: 0.001)
    to_build, to_serve = SAME[case]
    if "streaming" in model and "--max-seconds" in to_build:
        to_build = to_build[:2]
    built = Path(moulin_here("trt", "build", BUNDLES / model, *to_build).expect(0).out.strip())
    served = moulin_here(
        "repo", "build", BUNDLES / model, "--to", tmp_path / "repository", "--link", "--engine", "tensorrt", *to_serve
    )
    served.expect(0)
    (link,) = (tmp_path / "repository").rglob("encoder.plan")
    assert link.resolve() == built
    assert tensorrt.builds == 1
    assert len(list((tmp_path / "cache").rglob("*.plan"))) == 1


def test_another_workspace_builds_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt = install(monkeypatch, tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
    monkeypatch.setattr("moulin.tensorrt_engine.build.this_gpu", lambda _index: "NVIDIA H200, 9.0")
    monkeypatch.setattr("moulin.tensorrt_engine.drift.measure_drift", lambda *_: 0.001)
    asked: list[list[object]] = [[], ["--workspace-gib", 4], ["--workspace-gib", 2], []]
    for number, options in enumerate(asked, 1):
        moulin_here("trt", "build", BUNDLES / "lstm-streaming", *options).expect(0)
        assert tensorrt.builds == (1 if number < 3 else 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([BUNDLES / "conformer-offline"], "needs an NVIDIA GPU, and nvidia-smi is not installed"),
        ([DEMO_MODEL], "digits-en has no fp32 encoder, only int8"),
        ([BUNDLES / "zipformer2-offline", "--head", "ctc"], "has no CTC head"),
        ([BUNDLES / "conformer-offline", "--max-batch", 0], "Expected max-batch of at least 1, got 0"),
        ([BUNDLES / "conformer-offline", "--max-seconds", 300], "Expected max-seconds of at most 199.8, for which"),
        ([BUNDLES / "conformer-offline", "--max-seconds", 0], "Expected max-seconds above 0, got 0"),
        ([BUNDLES / "lstm-streaming", "--max-seconds", 10], "--max-seconds is for whole utterances"),
        ([BUNDLES / "conformer-offline", "--workspace-gib", 0], "Expected workspace-gib above 0, got 0"),
        (["/no/such"], "There is no model at /no/such"),
    ],
)
def test_what_cannot_be_built(arguments: list[object], message: str, tmp_path: Path) -> None:
    done = moulin_here("trt", "build", *arguments, "--to", tmp_path / "engines").expect(1)
    assert message in done.err
    assert done.out == ""
    assert not list(tmp_path.glob("engines/*"))
