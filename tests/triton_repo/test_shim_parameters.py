from __future__ import annotations

import json
import os

import pytest

from moulin.triton_repo.shim_parameters import ShimParameters


def read(**values: str) -> ShimParameters:
    defaults = {"encoder": "bundle/encoder.onnx", "engine": "onnxruntime", "device": "cpu"}
    chosen = {**defaults, "threads": "8", "instances": "2", **values}
    parameters = {name: {"string_value": value} for name, value in chosen.items()}
    return ShimParameters.read(
        {"model_config": json.dumps({"parameters": parameters}), "model_repository": "/there", "model_version": "1"}
    )


@pytest.mark.parametrize(
    ("engine", "instances", "workers", "call_threads"),
    [("onnxruntime", "1", 8, 8), ("onnxruntime", "2", 4, 8), ("torch", "2", 4, 4), ("torch", "16", 1, 1)],
)
def test_instances_share_the_threads(engine: str, instances: str, workers: int, call_threads: int) -> None:
    parameters = read(engine=engine, instances=instances)
    assert (parameters.workers, parameters.call_threads) == (workers, call_threads)


def test_by_default_all_threads() -> None:
    assert read(threads="").threads == len(os.sched_getaffinity(0))
