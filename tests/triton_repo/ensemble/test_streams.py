"""Streaming models in the layout `ensemble`: in this process after their configs, and on the real tritonserver."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.tokens import read_tokens
from moulin.client import Client
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import BundleError, ClientError, OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.triton_repo.ensemble.components import Backend
from moulin.triton_repo.ensemble.open_part import open_tied_streams
from moulin.triton_repo.ensemble.part import Tensors
from moulin.triton_repo.ensemble.repository import build_tied_streams
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundle.sentence_pieces import trained
from tests.bundles import BUNDLES, STREAMING
from tests.triton_repo.shim_args import shim_args

from .without_triton import Component

LSTM = BUNDLES / "lstm-streaming"
BEAM: dict[str, Any] = {"method": "modified_beam_search", "beam": 3}


@pytest.fixture(scope="module")
def speech() -> list[Floats]:
    return [read_audio(clip.audio)[4000 : 4000 + length] for clip, length in zip(demo_clips(), LENGTHS, strict=False)]


LENGTHS = (40_001, 23_456, 31_000)


def heard(recognizer: StreamRecognizer, waveform: Floats, changes: dict[str, Any] | None = None) -> str:
    stream = recognizer.open(recognizer.options.updated(changes or {}))
    for first in range(0, len(waveform), 3777):
        recognizer.accept(stream, waveform[first : first + 3777])
        recognizer.advance(stream)
    recognizer.finish(stream)
    recognizer.advance(stream)
    text = recognizer.text(stream)
    recognizer.close(stream)
    return text


class Repository:
    """Components as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._components: dict[str, Component] = {}

    def ask(self, model: str, tensors: Tensors, outputs: Any) -> list[Any]:
        if model not in self._components:
            self._components[model] = Component(self._folder, model)
        (answer,) = self._components[model]([tensors])
        return [answer[name] for name in outputs]


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
@pytest.mark.parametrize("bundle", STREAMING)
def test_what_the_configs_declare_gives_the_text_of_the_process(
    bundle: str, backend: Backend, tmp_path: Path, speech: list[Floats]
) -> None:
    options = StreamingOptions(max_batch=4, engine=EngineChoice(threads=1))
    folder = build_tied_streams(load_bundle(BUNDLES / bundle), tmp_path, options, backend=backend)
    assert (tmp_path / "encoder" / "1" / "model.py").is_file() == (backend == "python")
    parameters = ShimParameters.read(shim_args(folder), StreamingOptions)
    tied = open_tied_streams(parameters, Repository(tmp_path).ask, capacity=2)
    fused = open_stream_recognizer(BUNDLES / bundle, EngineChoice(threads=1), max_streams=2)
    said = [heard(tied, waveform) for waveform in speech]
    assert said == [heard(fused, waveform) for waveform in speech]
    assert heard(tied, speech[0], BEAM) == heard(fused, speech[0], BEAM)
    assert all(said)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Every streaming bundle under its own name."""
    repository = tmp_path_factory.mktemp("tied")
    for bundle in STREAMING:
        options = StreamingOptions(model_name=bundle, max_streams=4)
        build_tied_streams(load_bundle(BUNDLES / bundle), repository, options, link=True)
    free = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(repository, free) as running:
        running.wait_ready()
        yield running
        assert running.poll() is None, "tritonserver died during the tests"


@pytest.mark.triton
@pytest.mark.parametrize("bundle", STREAMING)
def test_streams_at_once_hear_what_the_process_hears(tied: TritonServer, speech: list[Floats], bundle: str) -> None:
    fused = open_stream_recognizer(BUNDLES / bundle, EngineChoice(threads=1), max_streams=1)

    def stream(number: int) -> str:
        waveform = speech[number]
        changes = BEAM if number == 2 else {}
        step = 1000 * (number + 2) + 77
        with Client(tied.grpc_url, model=bundle) as client, client.stream(**changes) as live:
            for first in range(0, len(waveform), step):
                live.send(waveform[first : first + step])
            return live.finish().text

    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(stream, range(3)))
    assert said == [heard(fused, waveform, BEAM if number == 2 else {}) for number, waveform in enumerate(speech)]
    assert all(said)


@pytest.mark.triton
def test_a_wrong_option_is_the_streams_own_failure(tied: TritonServer, speech: list[Floats]) -> None:
    with Client(tied.grpc_url, model=LSTM.name) as client:
        with pytest.raises(ClientError, match="methd"), client.stream(methd="greedy") as live:
            live.send(speech[0])
        with client.stream() as live:
            assert live.send(speech[0]) is not None
            assert live.finish().text


def test_tokens_of_a_bpe_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in LSTM.glob("*.onnx"):
        (folder / file.name).symlink_to(file)
    (folder / "bpe.model").write_bytes(trained(37))
    spec = load_bundle(folder)
    model = build_tied_streams(spec, tmp_path / "repository", StreamingOptions())
    assert read_tokens(model / "1" / "tokens.txt", 37) == spec.tokens


def test_what_cannot_be_tied(tmp_path: Path) -> None:
    spec = load_bundle(LSTM)
    with pytest.raises(OptionsError, match="is a checkpoint"):
        build_tied_streams(load_model(LSTM / "epoch-1.pt", expect="streaming"), tmp_path, StreamingOptions())
    with pytest.raises(OptionsError, match="Expected a streaming model, got the offline one"):
        build_tied_streams(load_bundle(BUNDLES / "conformer-offline"), tmp_path, StreamingOptions())
    with pytest.raises(OptionsError, match="The backend tensorrt needs the encoder's engine"):
        build_tied_streams(spec, tmp_path, StreamingOptions(), backend="tensorrt")
    with pytest.raises(OptionsError, match="in the ensemble TensorRT is a backend"):
        build_tied_streams(spec, tmp_path, StreamingOptions(engine=EngineChoice(kind="tensorrt")))
    x, *states = spec.encoder.inputs
    one = replace(spec, encoder=replace(spec.encoder, inputs=(replace(x, shape=(1, *x.shape[1:])), *states)))
    with pytest.raises(BundleError, match="for one stream at a time"):
        build_tied_streams(one, tmp_path, StreamingOptions())
    assert not list(tmp_path.iterdir())


def test_layouts_take_each_others_place(tmp_path: Path) -> None:
    spec = load_bundle(LSTM)
    build_tied_streams(spec, tmp_path, StreamingOptions(model_name="live"))
    assert {path.name for path in tmp_path.iterdir()} == {"live", "live_encoder", "live_decoder", "live_joiner"}
    build_streaming_repository(spec, tmp_path, StreamingOptions(model_name="live"))
    assert {path.name for path in tmp_path.iterdir()} == {"live"}
