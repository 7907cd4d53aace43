"""Repositories for backends that the pip-installed Triton has not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.client import Client
from moulin.demo.files import demo_speech
from moulin.errors import OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.ready_plan import ready_plan
from moulin.triton_repo.ensemble.open_part import open_tied_streams
from moulin.triton_repo.ensemble.repository import build_offline_ensemble, build_tied_streams
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import StandIn, install
from tests.triton_repo.shim_args import shim_args

from .test_config import request, texts
from .test_streams import Repository, heard
from .without_triton import read_config, run_ensemble

NETWORKS = ("encoder", "decoder", "joiner")
_TYPES = {onnx.TensorProto.FLOAT: pb.TYPE_FP32, onnx.TensorProto.INT64: pb.TYPE_INT64}


@pytest.fixture(scope="module")
def speech() -> list[Floats]:
    return [read_audio(clip.audio)[4000:40_001] for clip in demo_clips()[:2]]


@pytest.mark.parametrize("bundle", ["zipformer2-offline", "conformer-streaming"])
def test_configs_and_files_agree(bundle: str, tmp_path: Path) -> None:
    """Names, types and shapes that the configs declare are those of the ONNX files beside them."""
    spec = load_bundle(BUNDLES / bundle)
    if spec.streaming:
        build_tied_streams(spec, tmp_path, StreamingOptions(), backend="onnxruntime")
    else:
        build_offline_ensemble(spec, tmp_path, OfflineOptions(), backend="onnxruntime")
    for name in NETWORKS:
        config = read_config(tmp_path / name)
        graph = onnx.load(tmp_path / name / "1" / config.default_model_filename).graph
        for declared, found in ((config.input, graph.input), (config.output, graph.output)):
            assert {tensor.name for tensor in declared} == {tensor.name for tensor in found}
            tensors = {tensor.name: tensor.type.tensor_type for tensor in found}
            for tensor in declared:
                there = tensors[tensor.name]
                assert tensor.data_type == _TYPES[there.elem_type], tensor.name
                dims = [] if tensor.HasField("reshape") else list(tensor.dims)
                assert len(there.shape.dim) == 1 + len(dims)
                fixed = [dim.dim_value or -1 for dim in there.shape.dim][1:]
                assert all(-1 in pair or pair[0] == pair[1] for pair in zip(fixed, dims, strict=True)), tensor.name


def test_an_offline_ensemble_of_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: list[Floats]) -> None:
    """Step by step after the configs, with the plan's own types and profiles."""
    install(monkeypatch, tmp_path / "cache")
    spec = load_bundle(BUNDLES / "conformer-offline")
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=8, max_audio_sec=20)
    options = OfflineOptions(engine=EngineChoice(device="cuda:1", plan=plan), max_batch=8, max_audio_sec=20)
    repository = tmp_path / "repository"
    build_offline_ensemble(spec, repository, options, backend="tensorrt")
    config = read_config(repository / "encoder")
    assert (config.backend, config.default_model_filename, config.max_batch_size) == ("tensorrt", "model.plan", 8)
    (group,) = config.instance_group
    assert (group.kind, list(group.gpus), list(group.profile)) == (pb.ModelInstanceGroup.KIND_GPU, [1], ["0", "1"])
    assert sorted(file.name for file in (repository / "encoder" / "1").iterdir()) == ["model.json", "model.plan"]
    assert read_config(repository / "joiner").backend == "onnxruntime"
    long = np.concatenate([*speech, *speech, *speech, *speech])[:270_000]
    requests = [request(*speech), request(long), request(speech[0][:5000])]
    said = [text for answer in run_ensemble(repository, "transducer", requests) for text in texts(answer)]
    with open_recognizer(BUNDLES / "conformer-offline") as recognizer:
        assert said == [it.text for it in recognizer.transcribe([*speech, long, speech[0][:5000]])]
    assert all(said[:2])


def test_streams_on_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: list[Floats]) -> None:
    install(monkeypatch, tmp_path / "cache")
    bundle = BUNDLES / "zipformer-streaming"
    spec = load_bundle(bundle)
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=4)
    repository = tmp_path / "repository"
    with pytest.raises(OptionsError, match="The backend tensorrt runs on a GPU only"):
        build_tied_streams(spec, repository, StreamingOptions(engine=EngineChoice(plan=plan)), backend="tensorrt")
    options = StreamingOptions(engine=EngineChoice(device="cuda", threads=1, plan=plan), max_batch=4)
    folder = build_tied_streams(spec, repository, options, backend="tensorrt")
    engine = TensorRtPlan(repository / "encoder" / "1" / "model.plan", StandIn(), torch.device("cpu"))
    config = read_config(repository / "encoder")
    (profile,) = engine.profiles
    for tensor in config.input:
        assert list(profile[tensor.name].largest) == [config.max_batch_size, *tensor.dims]
    parameters = ShimParameters.read(shim_args(folder), StreamingOptions)
    tied = open_tied_streams(parameters, Repository(repository).ask, capacity=2)
    fused = open_stream_recognizer(bundle, EngineChoice(threads=1), max_streams=1)
    said = [heard(tied, waveform) for waveform in speech]
    assert said == [heard(fused, waveform) for waveform in speech]
    assert all(said)


@pytest.mark.triton
def test_the_rest_of_a_repository_for_onnxruntime_is_loaded_by_triton(tmp_path: Path, speech: list[Floats]) -> None:
    """The real tritonserver checks and runs every config; only what computes is not its own backend."""
    offline, live = BUNDLES / "conformer-offline", BUNDLES / "lstm-streaming"
    build_offline_ensemble(load_bundle(offline), tmp_path, OfflineOptions(), backend="onnxruntime")
    build_tied_streams(load_bundle(live), tmp_path, StreamingOptions(model_name="live"), backend="onnxruntime")
    for name in (*NETWORKS, *(f"live_{name}" for name in NETWORKS)):
        _run_in_python(tmp_path / name)
    free = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(tmp_path, free) as server:
        server.wait_ready()
        with Client(server.grpc_url) as client, open_recognizer(offline) as recognizer:
            said = [client.transcribe(waveform).text for waveform in speech]
            assert said == [transcript.text for transcript in recognizer.transcribe(speech)]
            assert all(said)
        fused = open_stream_recognizer(live, EngineChoice(threads=1), max_streams=1)
        with Client(server.grpc_url, model="live") as client, client.stream() as stream:
            stream.send(speech[0])
            assert stream.finish().text == heard(fused, speech[0])


def _run_in_python(folder: Path) -> None:
    config: Any = read_config(folder)
    assert config.backend == "onnxruntime"
    config.backend = "python"
    config.ClearField("default_model_filename")
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
    shutil.copyfile(Path(__file__).with_name("native_backend_model.py"), folder / "1" / "model.py")
