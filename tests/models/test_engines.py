from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.cli.arguments import EngineName
from moulin.engine.host_stepper import HostStepper
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.errors import EngineError, MoulinError, OptionsError
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.engines import ENGINES, check_engine, choose_engine
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES

FILES = BUNDLES / "conformer-offline"
CHECKPOINT = FILES / "epoch-1.pt"


@pytest.fixture(scope="module")
def onnx() -> ModelSpec:
    return load_model(FILES)


@pytest.fixture(scope="module")
def checkpoint() -> ModelSpec:
    return load_model(CHECKPOINT)


def test_the_command_line_offers_all_engines() -> None:
    assert get_args(EngineName) == (*ENGINES, "auto")


def test_the_form_on_disk_has_its_usual_engine(onnx: ModelSpec, checkpoint: ModelSpec) -> None:
    assert (
        choose_engine(onnx) == choose_engine(onnx, "onnxruntime") == check_engine(onnx, EngineChoice()) == "onnxruntime"
    )
    assert choose_engine(checkpoint) == choose_engine(checkpoint, "torch") == check_engine(checkpoint, EngineChoice())
    assert choose_engine(checkpoint) == "torch"


@pytest.mark.parametrize(
    ("model", "engine", "error", "message", "hint"),
    [
        (
            CHECKPOINT,
            "onnxruntime",
            OptionsError,
            "The engine onnxruntime runs ONNX files, and {file} is a checkpoint",
            "`moulin export`",
        ),
        (
            CHECKPOINT,
            "tensorrt",
            OptionsError,
            "The engine tensorrt runs ONNX files, and {file} is a checkpoint",
            "`moulin export`",
        ),
        (
            FILES,
            "tensorflow",
            OptionsError,
            "Expected an engine of onnxruntime, torch, tensorrt, openvino, got",
            "tensorflow",
        ),
    ],
)
def test_an_engine_that_does_not_fit(
    model: Path, engine: Engine, error: type[MoulinError], message: str, hint: str
) -> None:
    spec = load_model(model)
    with pytest.raises(error) as raised:
        choose_engine(spec, engine)
    said = str(raised.value)
    assert said.startswith(message.format(path=spec.path, file=spec.file))
    assert hint.format(path=spec.path) in said


def test_a_folder_with_both_forms_is_what_the_engine_runs() -> None:
    with open_recognizer(FILES, EngineChoice(kind="torch")) as torch, open_recognizer(FILES) as usual:
        assert isinstance(torch.spec, CheckpointSpec)
        assert isinstance(usual.spec, OnnxModelSpec)
    live = open_stream_recognizer(BUNDLES / "lstm-streaming", EngineChoice(kind="torch"), max_streams=1)
    assert isinstance(live.stepper, HostStepper)
    assert isinstance(live.stepper.runner, TorchStreamRunner)


def test_an_engine_is_checked_on_its_device(onnx: ModelSpec, checkpoint: ModelSpec) -> None:
    with pytest.raises(OptionsError, match="Expected a device of cpu, cuda or cuda:N, got 'gpu'"):
        check_engine(onnx, EngineChoice(device="gpu"))
    with pytest.raises(EngineError, match=r"Expected a GPU cuda:7, PyTorch .* finds \d GPUs"):
        check_engine(checkpoint, EngineChoice(device="cuda:7"))
