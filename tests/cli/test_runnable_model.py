"""Checkpoints for engines that run ONNX files: every verb that opens a model in its own process exports them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest

from moulin.bundle.spec import OnnxModelSpec
from moulin.cli.bench_options import MeasuredModel
from moulin.cli.runnable_model import runnable_model
from moulin.errors import EngineError
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import Engine, EngineChoice
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import install

from .command import moulin_here

CLIP = demo_clips()[0].audio
ON_ONNX = ("--engine", "onnxruntime")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _checkpoint(bundle: str, to: Path) -> Path:
    """A folder with the checkpoint alone, as training leaves it."""
    folder = to / bundle
    folder.mkdir()
    for name in ("epoch-1.pt", "tokens.txt"):
        shutil.copy(BUNDLES / bundle / name, folder)
    return folder


@pytest.mark.parametrize(
    ("command", "bundle"),
    [(("transcribe", CLIP), "conformer-offline"), (("stream", CLIP), "lstm-streaming")],
    ids=["transcribe", "stream"],
)
@pytest.mark.usefixtures("cache")
def test_the_text_is_the_checkpoints_and_the_second_time_nothing_is_written(
    command: tuple[object, ...], bundle: str, tmp_path: Path
) -> None:
    folder = _checkpoint(bundle, tmp_path)
    by_torch = moulin_here(*command, "--model", folder).expect(0)
    first = moulin_here(*command, "--model", folder, *ON_ONNX).expect(0)
    assert first.out == by_torch.out
    assert len(first.out) > 1
    assert f"Writing ONNX files of {folder / 'epoch-1.pt'} for the engine, into " in first.err
    assert "encoder: largest error" in first.err
    again = moulin_here(*command, "--model", folder / "epoch-1.pt", *ON_ONNX).expect(0)
    assert again.out == first.out
    assert "Writing" not in again.err


@pytest.mark.parametrize(("bundle", "mode"), [("conformer-offline", "offline"), ("lstm-streaming", "streaming")])
@pytest.mark.usefixtures("cache")
def test_the_model_of_a_benchmark(bundle: str, mode: Literal["offline", "streaming"], tmp_path: Path) -> None:
    measured = MeasuredModel(_checkpoint(bundle, tmp_path), engine=EngineChoice("onnxruntime"))
    with measured.opened(mode) as (spec, engine):
        assert isinstance(spec, OnnxModelSpec)
        assert spec.mode == mode
        assert engine.precision == "fp32"


@pytest.mark.usefixtures("cache")
def test_encoders_of_a_checkpoint_side_by_side(tmp_path: Path) -> None:
    folder = _checkpoint("conformer-offline", tmp_path)
    runners = "torch,onnxruntime:fp16,onnxruntime:int8"
    options = ("--batches", 1, "--frames", 50, "--rounds", 1, "--seconds", 0)
    done = moulin_here("bench", "encoder", "--model", folder, "--runners", runners, *options).expect(0)
    header = done.out.splitlines()[0]
    assert [word for word in header.split() if ":" in word] == ["onnxruntime:fp16", "onnxruntime:int8"]
    assert done.err.count("Writing ONNX files") == 2
    assert "fp16: " in done.err
    assert "int8: " in done.err


def test_on_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = _checkpoint("conformer-offline", tmp_path)
    tensorrt = install(monkeypatch, tmp_path / "cache")
    done = moulin_here("transcribe", CLIP, "--model", folder, "--engine", "tensorrt").expect(0)
    assert "Writing ONNX files" in done.err
    assert len(done.out) > 1
    assert tensorrt.builds == 1


@pytest.mark.parametrize("verb", ["transcribe", "stream"])
def test_without_a_gpu_nothing_is_exported_for_tensorrt(verb: str, cache: Path, tmp_path: Path) -> None:
    folder = _checkpoint("conformer-offline", tmp_path)
    done = moulin_here(verb, CLIP, "--model", folder, "--engine", "tensorrt").expect(1)
    assert done.err.startswith("moulin: Expected a GPU cuda, ")
    assert not cache.exists()


@pytest.mark.parametrize("engine", [None, "torch"])
def test_a_checkpoint_stays_one_for_the_engine_that_runs_it(engine: Engine | None, cache: Path, tmp_path: Path) -> None:
    folder = _checkpoint("conformer-offline", tmp_path)
    found = runnable_model(folder, EngineChoice(engine), streaming=False)
    assert found == folder
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_an_export_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    folder = _checkpoint("conformer-offline", tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise EngineError("no")

    monkeypatch.setattr("moulin.cli.export._check", fail)
    assert moulin_here("transcribe", CLIP, "--model", folder, *ON_ONNX).expect(1).err.endswith("moulin: no\n")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_the_demo_model_has_no_files_for_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "cache")
    done = moulin_here("serve", "--engine", "tensorrt").expect(1)
    about, hint = done.undated_err.splitlines()
    assert about.endswith("digits-en has no fp32 encoder, only int8")
    assert hint == (
        "  hint: leave out --precision and --engine tensorrt: it and bf16 on OpenVINO take fp32 files, "
        "or name another model"
    )
