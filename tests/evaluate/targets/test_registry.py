"""Targets by name: each is found for what it takes, and a wrong name lists the right ones."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from moulin.bundle.load_model import load_model
from moulin.errors import OptionsError
from moulin.evaluate.targets.registry import TARGETS, Load, at_once, started_names, target
from moulin.evaluate.targets.target import ServerSettings
from moulin.models.engine_choice import EngineChoice
from tests.bundles import BUNDLES

SETTINGS = ServerSettings(EngineChoice(threads=2))


def test_every_row_is_found_by_what_it_takes() -> None:
    for name, row in TARGETS.items():
        assert row.at_once is None or row.engine is not None or at_once(name) is row.at_once
        for load in get_args(Load):
            if (start := getattr(row, load)) is not None:
                assert target(name, load) is start
                assert name in started_names(load)
            if getattr(row, f"{load}_at") is not None:
                assert callable(target(f"{name}=localhost:1", load))


@pytest.mark.parametrize("name", ["moulin", "moulin-triton-grpc", "sherpa-onnx", "sherpa-onnx-server"])
@pytest.mark.parametrize("load", get_args(Load))
def test_a_target_that_is_to_be_started_needs_a_model(name: str, load: Load) -> None:
    with pytest.raises(OptionsError, match="Expected a model"), target(name, load)(None, SETTINGS):
        pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "There is no target 'nobody'"),
        ("nobody=localhost:1", "There is no target"),
        ("rest=", "Expected an address behind 'rest='"),
        ("triton-grpc=localhost", "Expected HOST:PORT or HOST:PORT/MODEL, got 'localhost'"),
        ("moulin=localhost:1", "There is no target"),
        ("echo", "There is no target 'echo'"),
    ],
)
def test_names_that_are_none_of_requests(name: str, message: str) -> None:
    with pytest.raises(OptionsError, match=message), target(name, "requests")(None, SETTINGS):
        pass


def test_a_wrong_name_lists_those_of_the_kind_asked_for() -> None:
    with pytest.raises(OptionsError) as streams:
        target("rest=http://localhost:1", "streams")
    assert "echo" in str(streams.value.hint)
    assert "realtime=ADDRESS" in str(streams.value.hint)
    assert "rest=" not in str(streams.value.hint)
    with pytest.raises(OptionsError) as whole:
        at_once("moulin-triton-grpc")
    assert whole.value.hint == (
        "the targets are moulin, moulin-openvino, moulin-triton, sherpa-onnx-batch1, sherpa-onnx-batch4, "
        "sherpa-onnx-batch16, sherpa-onnx-threads, each also as NAME:PRECISION, of fp32, fp16, bf16, int8"
    )
    for wrong in ("moulin:fp8", "nobody:fp32", "moulin:"):
        with pytest.raises(OptionsError, match=f"There is no target '{wrong}'"):
            at_once(wrong)


@pytest.mark.needs("sherpa_onnx")
def test_other_precisions_in_one_run() -> None:
    """Each in the files of its precision, whatever the run's own is."""
    folder = BUNDLES / "zipformer2-offline"
    spec = load_model(folder, expect="offline")
    settings = ServerSettings(EngineChoice("onnxruntime", precision="fp32", threads=1))
    waveform = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)

    def heard(name: str) -> list[str]:
        with at_once(name)(spec, settings) as transcribe:
            return transcribe([waveform])

    assert heard("moulin:int8") == heard("sherpa-onnx-threads:int8") != heard("moulin")
    assert heard("moulin:fp32") == heard("moulin") == heard("sherpa-onnx-threads:fp32")
    with pytest.raises(OptionsError, match="not in bf16"):
        heard("sherpa-onnx-threads:bf16")
