from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import OnnxModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import BundleError, OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.triton_repo.ensemble.components import BACKENDS, PARTS, Backend, component_name
from moulin.triton_repo.ensemble.config import ensemble_configs
from moulin.triton_repo.ensemble.repository import build_offline_ensemble
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository
from moulin.triton_repo.service_parameter import read_service
from tests.bundles import BUNDLES, OFFLINE

from .without_triton import read_config, run_ensemble

CONFORMER = BUNDLES / "conformer-offline"


def audios() -> list[Floats]:
    """Pieces of speech of odd lengths."""
    lengths = (4_001, 9_000, 33_333, 40_007)
    return [read_audio(clip.audio)[8000 : 8000 + length] for clip, length in zip(demo_clips(), lengths, strict=False)]


def request(*waveforms: Floats) -> dict[str, Any]:
    wav = np.zeros((len(waveforms), max(map(len, waveforms)) + 1000), np.float32)
    for row, waveform in zip(wav, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return {"WAV": wav, "WAV_LENS": np.array([[len(waveform)] for waveform in waveforms], np.int32)}


def texts(answer: Any) -> list[str]:
    return [row.decode() for row in answer["TRANSCRIPTS"][:, 0]]


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
@pytest.mark.parametrize("bundle", OFFLINE)
def test_what_the_configs_declare_gives_the_text_of_the_process(bundle: str, backend: Backend, tmp_path: Path) -> None:
    """No name, type or shape differs between config, ensemble and graph."""
    build_offline_ensemble(load_bundle(BUNDLES / bundle), tmp_path, OfflineOptions(max_batch=8), backend=backend)
    one, two, three, four = audios()
    empty = np.zeros(0, np.float32)
    requests = [request(one), request(two, empty, three), request(four), request(empty)]
    said = [text for answer in run_ensemble(tmp_path, "transducer", requests) for text in texts(answer)]
    with open_recognizer(BUNDLES / bundle) as recognizer:
        heard = [transcript.text for transcript in recognizer.transcribe([one, two, empty, three, four, empty])]
    assert said == heard
    assert sum(map(bool, said)) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_tensor_has_one_type_along_its_way(backend: Backend) -> None:
    """Types are the same also where the graph has names and types of its own."""
    spec = load_bundle(CONFORMER)
    renamed = dataclasses.replace(spec, encoder=_renamed(spec.encoder, {"x": "speech", "x_lens": "speech_lengths"}))
    for case in (spec, renamed):
        configs = ensemble_configs(case, OfflineOptions(), backend, min_frames=9)
        by_name = {config.name: config for config in configs.values()}
        ensemble = configs[None]
        types = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in ensemble.input}
        for step in ensemble.ensemble_scheduling.step:
            model = by_name[step.model_name]
            inputs = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in model.input}
            outputs = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in model.output}
            assert set(step.input_map) == set(inputs)
            assert {types[value] for value in step.input_map.values()} == set(inputs.values())
            assert all(types[value] == inputs[name] for name, value in step.input_map.items())
            types |= {value: outputs[name] for name, value in step.output_map.items()}
        assert all(types[tensor.name] == (tensor.data_type, tuple(tensor.dims)) for tensor in ensemble.output)
        if backend != "python":
            assert [tensor.name for tensor in configs["encoder"].input] == [t.name for t in case.encoder.inputs]
    if backend == "python":
        assert [tensor.name for tensor in configs["encoder"].input] == ["x", "x_lens"]
    else:
        assert configs["feature_extractor"].output[0].data_type == pb.TYPE_FP16
        assert configs["scorer"].input[0].data_type == pb.TYPE_FP32


def _renamed(graph: OnnxGraph, names: dict[str, str]) -> OnnxGraph:
    """With other inputs, and x in half precision."""
    inputs = tuple(
        dataclasses.replace(tensor, name=names[tensor.name], dtype="float16" if tensor.name == "x" else tensor.dtype)
        for tensor in graph.inputs
    )
    return dataclasses.replace(graph, inputs=inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_encoder_is_on_the_gpu(backend: Backend) -> None:
    """Features are computed where the audio is and cross to the GPU once; the search stays on the CPU."""
    options = OfflineOptions(engine=EngineChoice(device="cuda:1"), instances=2)
    configs = ensemble_configs(load_bundle(CONFORMER), options, backend, min_frames=9)
    for part in PARTS:
        (group,) = configs[part].instance_group
        if part == "encoder":
            assert (group.kind, list(group.gpus), group.count) == (pb.ModelInstanceGroup.KIND_GPU, [1], 2)
        else:
            assert (group.kind, group.count) == (pb.ModelInstanceGroup.KIND_CPU, 1)


def test_backends_and_files(tmp_path: Path) -> None:
    for backend in ("python", "onnxruntime"):
        build_offline_ensemble(load_bundle(CONFORMER), tmp_path, OfflineOptions(), backend=backend)
        for part in PARTS:
            python = backend == "python" or part in ("feature_extractor", "scorer")
            assert read_config(tmp_path / part).backend == ("python" if python else "onnxruntime")
            assert (tmp_path / part / "1" / "model.py").is_file() == python
            network = part in ("encoder", "decoder", "joiner")
            assert (tmp_path / part / "1" / "model.onnx").is_file() == network
    assert read_config(tmp_path / "encoder").default_model_filename == "model.onnx"
    configs = ensemble_configs(load_bundle(CONFORMER), OfflineOptions(), "tensorrt", min_frames=9)
    assert (configs["encoder"].backend, configs["encoder"].default_model_filename) == ("tensorrt", "model.plan")
    assert configs["joiner"].backend == "onnxruntime"


def test_names_options_and_links(tmp_path: Path) -> None:
    options = OfflineOptions(
        engine=EngineChoice(threads=3),
        model_name="english",
        max_batch=7,
        max_audio_sec=12.5,
        decoding=DecodingOptions(beam=16),
    )
    folder = build_offline_ensemble(load_bundle(CONFORMER), tmp_path, options, link=True)
    assert folder == tmp_path / "english"
    assert {path.name for path in tmp_path.iterdir()} == {"english", *(f"english_{part}" for part in PARTS)}
    assert (tmp_path / "english_encoder" / "1" / "model.onnx").is_symlink()
    scorer = {key: value.string_value for key, value in read_config(tmp_path / "english_scorer").parameters.items()}
    assert scorer["joiner_model"] == "english_joiner"
    assert scorer["joiner_max_rows"] == "112"
    assert read_service(OfflineOptions, scorer, "scorer").decoding.beam == 16
    assert read_config(tmp_path / "english_joiner").max_batch_size == 112
    features = read_config(tmp_path / "english_feature_extractor")
    told = read_service(OfflineOptions, {"service": features.parameters["service"].string_value}, "features")
    assert (told.max_audio_sec, told.engine.threads) == (12.5, 3)
    assert read_config(folder).parameters["max_utterance_sec"].string_value == "12.5"
    assert features.max_batch_size == 7


def test_layouts_take_each_others_place(tmp_path: Path) -> None:
    """Components of an ensemble that is no more are not left to be loaded; another model's stay."""
    spec = load_bundle(CONFORMER)
    build_offline_ensemble(spec, tmp_path, OfflineOptions(model_name="other"))
    fused = build_offline_repository(spec, tmp_path, OfflineOptions())
    inside = load_bundle(fused / "1" / "bundle")
    build_offline_ensemble(inside, tmp_path, OfflineOptions())
    build_offline_ensemble(spec, tmp_path, OfflineOptions())
    others = {"other", *(component_name("other", part) for part in PARTS)}
    assert {path.name for path in tmp_path.iterdir()} == {"transducer", *PARTS, *others}
    build_offline_repository(spec, tmp_path, OfflineOptions())
    assert {path.name for path in tmp_path.iterdir()} == {"transducer", *others}


def test_a_folder_that_is_no_model_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "joiner").mkdir()
    with pytest.raises(OptionsError, match="joiner exists and is not a Triton model"):
        build_offline_ensemble(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["joiner"]


def test_what_the_layout_does_not_serve(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"takes ONNX files, and .*epoch-1\.pt is a checkpoint .*moulin export"):
        build_offline_ensemble(load_model(CONFORMER / "epoch-1.pt"), tmp_path, OfflineOptions())
    with pytest.raises(OptionsError, match="Expected an offline model, got the streaming one"):
        build_offline_ensemble(load_bundle(BUNDLES / "lstm-streaming"), tmp_path, OfflineOptions())
    with pytest.raises(OptionsError, match="The backend tensorrt needs the encoder's engine"):
        build_offline_ensemble(load_bundle(CONFORMER), tmp_path, OfflineOptions(), backend="tensorrt")
    with pytest.raises(OptionsError, match="in the ensemble TensorRT is a backend"):
        build_offline_ensemble(load_bundle(CONFORMER), tmp_path, OfflineOptions(engine=EngineChoice(kind="tensorrt")))
    spec = load_bundle(CONFORMER)
    assert isinstance(spec, OnnxModelSpec)
    lengthless = dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, inputs=spec.encoder.inputs[:1]))
    with pytest.raises(BundleError, match="to take and return lengths"):
        build_offline_ensemble(lengthless, tmp_path, OfflineOptions(), backend="onnxruntime")
    assert not list(tmp_path.iterdir())
