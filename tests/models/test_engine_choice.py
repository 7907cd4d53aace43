from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.bundle.precision import PRECISIONS
from moulin.errors import OptionsError
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.options import from_json, to_json


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"device": "gpu"}, "cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:x"}, "got 'cuda:x'"),
        ({"device": "cuda:-1"}, "got 'cuda:-1'"),
        ({"device": None}, "device to be text, got None"),
        ({"threads": 0}, "threads of at least 1, got 0"),
        ({"threads": 1.5}, "threads to be a whole number, got 1.5"),
        ({"threads": True}, "threads to be a whole number, got True"),
        ({"kind": "abacus"}, "engine to be one of onnxruntime, torch, tensorrt, openvino, auto, got 'abacus'"),
        ({"precision": "fp8"}, "precision to be one of fp32, fp16, bf16, int8, got 'fp8'"),
        ({"cuda_graphs": 1}, "cuda-graphs to be true or false, got 1"),
        ({"plan": "encoder.plan"}, "plan to be a path, got 'encoder.plan'"),
    ],
)
def test_what_is_no_choice(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=f"^Expected .*{message}"):
        EngineChoice(**wrong)


@pytest.mark.parametrize(
    ("kind", "device", "runs_on"),
    [
        (None, "cpu", "cpu"),
        ("torch", "cuda:1", "cuda:1"),
        ("tensorrt", "cpu", "cuda"),
        ("tensorrt", "cuda:1", "cuda:1"),
    ],
)
def test_tensorrt_runs_on_a_gpu(kind: Engine | None, device: str, runs_on: str) -> None:
    assert EngineChoice(kind, device).runs_on == runs_on


def test_tensorrt_is_built_of_fp32_files() -> None:
    assert EngineChoice("tensorrt", precision="bf16").file_precision == "fp32"
    assert EngineChoice("onnxruntime", precision="int8").file_precision == "int8"


choices = st.builds(
    EngineChoice,
    kind=st.sampled_from([None, *get_args(Engine)]),
    device=st.sampled_from(["cpu", "cuda"]) | st.integers(0, 10**6).map(lambda gpu: f"cuda:{gpu}"),
    cuda_graphs=st.booleans(),
    precision=st.sampled_from([None, *PRECISIONS]),
    threads=st.none() | st.integers(1),
    workers=st.none() | st.integers(1),
    plan=st.none() | st.text(st.characters(exclude_characters="\0")).map(Path),
)


@given(choices)
def test_there_and_back(choice: EngineChoice) -> None:
    assert from_json(EngineChoice, to_json(choice)) == choice
