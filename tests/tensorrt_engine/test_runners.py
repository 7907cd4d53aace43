"""The engine tensorrt with what stands for TensorRT: everything but TensorRT's own computing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import moulin.cli.models as cli_models
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL, demo_speech
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.live_transcript import LiveTranscript
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.tensorrt_engine import ready_plan as open_tensorrt
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan, tensorrt_module
from moulin.tensorrt_engine.runner import TensorRtEncoder, TensorRtRunner
from moulin.tensorrt_engine.stream_runner import TensorRtStreamRunner
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import Arrays, StandIn, install
from tests.triton_repo.shim_args import shim_args

CPU = torch.device("cpu")
OFFLINE = [f"{family}-offline" for family in ("conformer", "zipformer", "zipformer2")]
STREAMING = [f"{family}-streaming" for family in ("conformer", "zipformer", "zipformer2", "lstm")]


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    return install(monkeypatch, tmp_path / "cache")


@pytest.mark.parametrize("name", OFFLINE)
def test_an_offline_encoder(name: str, tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / name)
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=3, max_audio_sec=18)
    tensorrt.profiles_used.clear()
    runner = TensorRtRunner(spec, open_plan(spec, plan, device="cuda"), threads=1)
    usual = OnnxRuntimeRunner(spec, threads=1, rewrite=False)
    random = np.random.default_rng(0)
    # One too short, more than fit in a batch, one for the second profile, and back.
    for rows, frames, profile in ((1, 3, 0), (5, 120, 0), (1, 1700, 1), (1, 300, 0)):
        x = random.normal(-6, 4, (rows, frames, 80)).astype(np.float32)
        lengths = np.array([frames, *random.integers(20, 100, rows - 1)])
        found, out_lens = runner.encoder(x, lengths)
        wanted, wanted_lens = usual.encoder(x, lengths, alone=True)
        assert out_lens.tolist() == wanted_lens.tolist()
        for row, length in enumerate(out_lens):
            assert np.abs(found[row, :length] - wanted[row, :length]).max(initial=0) < 1e-4, (rows, frames)
        assert tensorrt.profiles_used == [profile] * -(-rows // 3)
        tensorrt.profiles_used.clear()
    with pytest.raises(EngineError, match=r"was built for x \[1, \d+, 80\] to .*, got x \[1, 1900, 80\]"):
        runner.encoder(np.zeros((1, 1900, 80), np.float32), np.array([1900]))


@pytest.mark.parametrize("name", STREAMING)
def test_a_streaming_encoder_keeps_its_states(name: str, tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / name)
    assert spec.streaming is not None
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=2)
    runner = TensorRtStreamRunner(spec, open_plan(spec, plan, device="cuda"), capacity=4)
    usual = OnnxRuntimeStreamRunner(spec, capacity=4, rewrite=False)
    random = np.random.default_rng(0)
    for step, slots in enumerate(([0], [3, 1, 0], [1], [0, 3], [1, 2])):
        x = random.normal(-6, 4, (len(slots), spec.streaming.window_frames, 80)).astype(np.float32)
        if step == 3:
            # A step that fails takes nobody further, not even those who were in its first part.
            tensorrt.failing = {"execute_async_v3"}
            with pytest.raises(EngineError, match="TensorRT failed on the whole pass"):
                runner.encoder(x, np.array(slots))
            tensorrt.failing = set()
        if step == 4:
            runner.reset(np.array([1]))
            usual.reset(np.array([1]))
        found, wanted = runner.encoder(x, np.array(slots)), usual.encoder(x, np.array(slots))
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-4, step


def test_texts_are_those_of_onnx_runtime(tensorrt: StandIn) -> None:
    waveform = read_audio(demo_clips()[0].audio)
    texts = []
    engines: tuple[Engine, ...] = ("tensorrt", "onnxruntime")
    for engine in engines:
        with open_stream_recognizer(DEMO_STREAMING_MODEL, EngineChoice(kind=engine), max_streams=2) as recognizer:
            stream = recognizer.open()
            recognizer.accept(stream, waveform)
            recognizer.finish(stream)
            live = LiveTranscript()
            live.apply(recognizer.advance(stream))
            texts.append(live.text)
    assert texts[0] == texts[1] != ""
    assert tensorrt.builds == 1
    for engine in engines:
        with open_recognizer(BUNDLES / "conformer-offline", EngineChoice(kind=engine), max_audio_sec=10) as offline:
            texts.append(offline.transcribe([waveform[:48_000]])[0].text)
    assert texts[2] == texts[3]


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


def _nan(arrays: Arrays) -> Arrays:
    arrays["encoder_out"][0, -1, 5] = np.nan
    return arrays


def _off(arrays: Arrays) -> Arrays:
    return arrays | {"encoder_out": arrays["encoder_out"] * 1.2}


@pytest.mark.parametrize("name", ["conformer-offline", "lstm-streaming"])
def test_an_engine_that_computes_something_else_is_not_kept(name: str, tensorrt: StandIn, tmp_path: Path) -> None:
    spec = load_bundle(BUNDLES / name)
    for damage, message in (
        (_nan, r"in fp16 gives NaN or infinity in \d+ of \d+ encoder frames of speech.*--precision bf16 or fp32"),
        (_off, r"in fp16 differs from ONNX Runtime by (19|20)\.\d\d% on speech, and rounding explains at most 3%"),
    ):
        tensorrt.damage = damage
        with pytest.raises(EngineError, match=message):
            ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5, to=tmp_path / "engines")
        assert not list((tmp_path / "engines").iterdir())


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


def test_a_failure_is_said_and_does_not_stay(tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / "conformer-offline")
    plan = ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5)
    encoder = TensorRtEncoder(spec, open_plan(spec, plan, device="cuda"))
    x, lengths = np.zeros((1, 60, 80), np.float32), np.array([60])
    before, _ = encoder.encoder(x, lengths)
    tensorrt.failing = {"execute_async_v3"}
    with pytest.raises(EngineError, match="TensorRT failed on the whole pass"):
        encoder.encoder(x, lengths)
    tensorrt.failing = set()
    assert np.array_equal(encoder.encoder(x, lengths)[0], before)


def test_tensorrt_is_not_installed_here() -> None:
    with pytest.raises(EngineError, match=r"needs TensorRT's Python package.*pip install tensorrt, or leave out --eng"):
        tensorrt_module()
    with pytest.raises(EngineError, match="needs TensorRT's Python package"):
        open_recognizer(BUNDLES / "conformer-offline", EngineChoice(kind="tensorrt"))
