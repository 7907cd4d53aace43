"""Engines built, found in the cache and opened, with the stand-in for TensorRT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import moulin.cli.models as cli_models
from moulin.bundle.load import load_bundle
from moulin.demo.files import demo_speech
from moulin.engine.host_stepper import HostStepper
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.tensorrt_engine import ready_plan as open_tensorrt
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
from moulin.tensorrt_engine.stream_runner import TensorRtStreamRunner
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import StandIn
from tests.triton_repo.shim_args import shim_args

CPU = torch.device("cpu")


def test_an_engine_is_built_once_and_checked(tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / "conformer-offline")
    said: list[str] = []
    one = ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5, say=said.append)
    assert "conformer-offline for TensorRT 10.13.2 on NVIDIA H200, 9.0, fp16" in said[0]
    assert said[1].strip() == "Building Engine: 1 steps ..."
    assert said[-1].startswith("It differs from ONNX Runtime by 0.")
    assert ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5) == one
    assert tensorrt.builds == 1
    assert ready_plan(
        spec, device="cuda", speech=demo_speech, precision="bf16", max_batch=2, max_audio_sec=5
    ).name.startswith("encoder-bf")
    with pytest.raises(OptionsError, match="precision of fp32, fp16, bf16 for TensorRT, got int8"):
        ready_plan(spec, device="cuda", speech=demo_speech, precision="int8")


@pytest.mark.parametrize("name", ["conformer-offline", "lstm-streaming"])
def test_a_repository_has_its_engine(name: str, tensorrt: StandIn, tmp_path: Path) -> None:
    """Built as `moulin repo build --engine tensorrt` does, and opened as Triton's shim does."""
    services = cli_models.Services(
        offline=OfflineOptions(max_batch=2, max_audio_sec=5), streaming=StreamingOptions(max_batch=2, max_streams=2)
    )
    named = cli_models.load_models([BUNDLES / name], EngineChoice("tensorrt", precision="bf16"))
    cli_models.build_models(named, tmp_path, services)
    folder = tmp_path / "transducer"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    parameters: Any = ShimParameters.read(
        shim_args(folder), StreamingOptions if "streaming" in name else OfflineOptions
    )
    assert parameters.engine.plan == folder / "1" / "encoder.plan"
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    if "streaming" in name:
        with open_stream_recognizer(parameters.encoder, parameters.engine) as live:
            assert isinstance(live.stepper, HostStepper)
            assert isinstance(live.stepper.runner, TensorRtStreamRunner)
            stream = live.open()
            live.accept(stream, noise)
            live.finish(stream)
            live.advance(stream)
    else:
        with open_recognizer(parameters.encoder, parameters.engine) as offline:
            offline.transcribe([noise, noise[:9000], noise[:20]])
    assert tensorrt.builds == 1


def test_an_engine_of_something_else_is_refused(tensorrt: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, other = (load_bundle(BUNDLES / name) for name in ("conformer-offline", "conformer-streaming"))
    plan = ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5)
    with pytest.raises(EngineError, match="built from other files than the model's"):
        open_plan(other, plan, device="cuda")
    with pytest.raises(EngineError, match="to have the inputs states, x, got x, x_lens"):
        TensorRtStreamRunner(other, TensorRtPlan(plan, tensorrt, CPU), capacity=1)
    with pytest.raises(BundleError, match="Expected a streaming model"):
        TensorRtStreamRunner(spec, TensorRtPlan(plan, tensorrt, CPU), capacity=1)
    monkeypatch.setattr(open_tensorrt, "gpu_name", lambda _gpu: "NVIDIA L4, 8.9")
    with pytest.raises(EngineError, match=r"built for the GPU NVIDIA H200, 9\.0, and here is NVIDIA L4, 8\.9"):
        open_plan(spec, plan, device="cuda")
    tensorrt.failing = {"create_execution_context"}
    with pytest.raises(EngineError, match=r"cannot allocate memory for running .*smaller --max-batch"):
        TensorRtPlan(plan, tensorrt, CPU)
    plan.write_bytes(b"something else")
    with pytest.raises(EngineError, match=r"TensorRT 10.13.2.6 cannot load .*build the engine again"):
        TensorRtPlan(plan, tensorrt, CPU)


def test_neither_library_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        EngineError, match=r"needs TensorRT's Python package.*pip install tensorrt, or .*leave out --eng"
    ):
        open_recognizer(BUNDLES / "conformer-offline", EngineChoice(kind="tensorrt"))
