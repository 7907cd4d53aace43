"""The form in a folder that options of the command line ask for."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from moulin.bundle.choice import Mode
from moulin.bundle.spec import CheckpointSpec, ModelSpec
from moulin.cli.model_options import ModelOptions
from moulin.cli.models import ModelNames, load_models
from moulin.cli.wish import wish_of
from moulin.errors import BundleError, OptionsError
from moulin.models.engine_choice import Engine, EngineChoice
from tests.bundles import BUNDLES

from .command import moulin_here

needs_torch = pytest.mark.needs("torch")

CAUSAL = BUNDLES / "zipformer2-streaming"  # streaming exports and the checkpoint


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, None),
        ({"device": "cuda"}, "checkpoint"),
        ({"device": "cuda:1"}, "checkpoint"),
        ({"engine": "torch"}, "checkpoint"),
        ({"engine": "onnxruntime", "device": "cuda"}, "onnx"),
        ({"engine": "tensorrt"}, "onnx"),
        ({"onnx_only": True, "device": "cuda"}, "onnx"),
    ],
)
def test_forms(options: dict[str, Any], form: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))  # PyTorch is there
    engine = EngineChoice(options.get("engine"), options.get("device", "cpu"))
    assert wish_of(engine, onnx_only=options.get("onnx_only", False)).form == form


def test_a_gpu_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert wish_of(EngineChoice(device="cuda")).form is None


def test_no_device() -> None:
    with pytest.raises(OptionsError, match="Expected a device of cpu, cuda or cuda:N, got 'gpu'"):
        wish_of(EngineChoice(device="gpu"))


def loaded(
    device: str = "cpu", engine: Engine | None = None, mode: Mode | None = None, *, onnx_only: bool = False
) -> ModelSpec:
    (named,) = load_models([CAUSAL], EngineChoice(engine, device), mode=mode, onnx_only=onnx_only)
    return named.spec


@pytest.mark.parametrize(
    ("options", "checkpoint", "mode"),
    [
        ({}, False, "streaming"),
        pytest.param({"device": "cuda"}, True, "streaming", marks=needs_torch),  # as its exports are
        pytest.param({"device": "cuda", "mode": "offline"}, True, "offline", marks=needs_torch),
        ({"device": "cuda", "onnx_only": True}, False, "streaming"),
        ({"device": "cuda", "engine": "onnxruntime"}, False, "streaming"),
        pytest.param({"engine": "torch"}, True, "streaming", marks=needs_torch),
        pytest.param({"mode": "offline"}, True, "offline", marks=needs_torch),
    ],
)
def test_what_is_served_of_a_folder_with_both(
    options: dict[str, Any], checkpoint: bool, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = loaded(**options)
    assert (isinstance(spec, CheckpointSpec), spec.mode) == (checkpoint, mode)
    assert ("checkpoint" in capsys.readouterr().err) is checkpoint


@needs_torch
def test_a_checkpoint_that_is_called_streaming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing but a name says that it is for streams: it stays what checkpoints are, and a line says so."""
    for name in ("epoch-1.pt", "tokens.txt"):
        (tmp_path / "asr-streaming").mkdir(exist_ok=True)
        (tmp_path / "asr-streaming" / name).symlink_to(CAUSAL / name)
    for mode, said in ((None, True), ("streaming", False), ("offline", False)):
        wished: Any = mode
        (named,) = load_models([tmp_path / "asr-streaming"], mode=wished)
        assert named.spec.mode == (mode or "offline")
        assert ("is taken for whole utterances; --streaming" in capsys.readouterr().err) is said


@needs_torch
@pytest.mark.parametrize(
    ("folder", "modes"),
    [
        ("zipformer2-streaming", ["offline", "streaming"]),
        ("lstm-streaming", ["offline", "streaming"]),
        ("zipformer2-offline", ["offline"]),
        ("conformer-streaming", ["offline"]),  # nothing says that it was trained for streams
    ],
)
def test_a_checkpoint_for_both(folder: str, modes: list[str]) -> None:
    """Of one that was trained for streams, if both are wanted; not where the mode is said, nor of exports."""
    checkpoint = BUNDLES / folder / "epoch-1.pt"
    assert [named.spec.mode for named in load_models([checkpoint], both_ways=True)] == modes
    assert [named.spec.mode for named in load_models([checkpoint])] == ["offline"]
    assert [named.spec.mode for named in load_models([checkpoint], mode="offline", both_ways=True)] == ["offline"]
    assert len(load_models([BUNDLES / folder], both_ways=True)) == 1


@needs_torch
def test_names_of_both() -> None:
    names = ModelNames(name="english", streaming_name="live")
    named = load_models([BUNDLES / "zipformer2-streaming" / "epoch-1.pt"], names=names, both_ways=True)
    assert [model.name for model in named] == ["english", "live"]


def test_a_language_that_is_not_there() -> None:
    with pytest.raises(BundleError, match="has no files for the language de: its files name no language"):
        load_models([CAUSAL], said=ModelOptions(language="de"))


@pytest.mark.parametrize("verb", ["transcribe", "stream"])
def test_language_in_verbs_that_run_a_model(verb: str, tmp_path: Path) -> None:
    for language in ("de", "en"):
        for role in ("encoder", "decoder", "joiner"):
            (tmp_path / f"{language}_{role}.onnx").touch()
        (tmp_path / f"{language}_tokens.txt").touch()
    clip = next(iter(sorted((Path(__file__).parents[2] / "src/moulin/demo/audio").glob("*.flac"))))
    done = moulin_here(verb, clip, "--model", tmp_path).expect(1)
    assert f"{tmp_path} holds models of 2 languages: de, en" in done.err
    done = moulin_here(verb, clip, "--model", tmp_path, "--language", "en").expect(1)
    assert "en_encoder.onnx holds no complete ONNX graph" in done.err
