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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([BUNDLES / "conformer-offline"], "needs an NVIDIA GPU, and nvidia-smi is not installed"),
        ([DEMO_MODEL], "An engine is built from fp32 files, and "),
        ([BUNDLES / "conformer-offline" / "epoch-1.pt"], "An engine is built from ONNX files, and "),
        ([BUNDLES / "conformer-offline", "--max-batch", 0], "Expected max-batch of at least 1, got 0"),
        ([BUNDLES / "conformer-offline", "--max-seconds", 300], "Expected max-seconds of at most 199.8, for which"),
        ([BUNDLES / "conformer-offline", "--workspace-gib", 0], "Expected workspace-gib above 0, got 0"),
        (["/no/such"], "There is no model at /no/such"),
    ],
)
def test_what_cannot_be_built(arguments: list[object], message: str, tmp_path: Path) -> None:
    done = moulin_here("trt", "build", *arguments, "--to", tmp_path / "engines").expect(1)
    assert message in done.err
    assert done.out == ""
    assert not list(tmp_path.glob("engines/*"))
