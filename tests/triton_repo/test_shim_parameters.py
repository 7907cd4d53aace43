from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moulin.errors import BundleError
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.options import to_json
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters


def read(values: dict[str, str], **instance: str) -> ShimParameters[OfflineOptions]:
    parameters = {name: {"string_value": value} for name, value in values.items()}
    args = {"model_config": json.dumps({"parameters": parameters}), "model_repository": "/there", "model_version": "1"}
    args |= instance
    return ShimParameters.read(args, OfflineOptions)


def told(engine: EngineChoice, instances: int = 1) -> ShimParameters[OfflineOptions]:
    options = OfflineOptions(engine=engine, instances=instances, encoder="bundle/encoder.onnx")
    return read({"service": to_json(options)})


@pytest.mark.parametrize(
    ("engine", "instances", "workers", "call_threads"),
    [("onnxruntime", 1, 8, 8), ("onnxruntime", 2, 4, 8), ("torch", 2, 4, 4), ("torch", 16, 1, 1)],
)
def test_instances_share_the_threads(engine: Engine, instances: int, workers: int, call_threads: int) -> None:
    opened = told(EngineChoice(engine, threads=8), instances).engine
    assert (opened.workers, opened.threads) == (workers, call_threads)


def test_an_instance_of_several_gpus_is_on_its_own() -> None:
    options = OfflineOptions(engine=EngineChoice(device="cuda:1", threads=8), instances=2, gpus=(1, 3))
    for gpu in (1, 3):
        opened = read(
            {"service": to_json(options)}, model_instance_kind="GPU", model_instance_device_id=str(gpu)
        ).engine
        assert (opened.device, opened.workers) == (f"cuda:{gpu}", 2)  # of four instances


def test_by_default_all_threads() -> None:
    assert told(EngineChoice()).threads == told(EngineChoice()).engine.threads == len(os.sched_getaffinity(0))


def test_paths_are_relative_to_the_version() -> None:
    parameters = told(EngineChoice("tensorrt", plan=Path("encoder.plan")))
    assert parameters.encoder == Path("/there/1/bundle/encoder.onnx")
    assert parameters.engine.plan == Path("/there/1/encoder.plan")
    assert told(EngineChoice()).engine.plan is None


def test_what_an_earlier_moulin_wrote_is_refused_with_what_to_do() -> None:
    with pytest.raises(BundleError) as refused:
        read({"encoder": "bundle/encoder.onnx", "engine": "", "device": "cpu", "threads": ""})
    assert refused.value.message == (
        "Expected /there/config.pbtxt to have the parameter 'service', got device, encoder, engine, threads: "
        "an earlier moulin wrote it, or none"
    )
    assert refused.value.hint == "build it anew with `moulin repo build`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"encoder": "x", "max_brunch": 3}', "There is no option 'max_brunch' in the options"),
        (
            '{"engine": {"kind": "abacus"}}',
            "Expected engine to be one of onnxruntime, torch, tensorrt, openvino, auto, got 'abacus'",
        ),
        ('{"engine": 3}', "Expected engine to be a JSON object, got int"),
        ('{"max_batch": "3"}', "Expected max-batch to be a whole number, got '3'"),
        ('{"max_batch": 0}', "Expected max-batch of 1 to 1e6, got 0"),
        ("{", "The options are not JSON"),
    ],
)
def test_what_no_moulin_of_today_wrote(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=r"/there/config\.pbtxt was written for another moulin") as refused:
        read({"service": text})
    assert message in refused.value.message
