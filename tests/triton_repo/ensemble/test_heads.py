"""Encoders with a CTC head in the layout `ensemble`, after their configs: blank frames skipped, and the head decoded,
as in one process, which sherpa-onnx judges in `tests/engine`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.choice import Head
from moulin.bundle.load_model import load_model
from moulin.decoding.options import METHODS, DecodingOptions
from moulin.demo.files import demo_speech
from moulin.errors import OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.tensorrt_engine.ready_plan import ready_plan
from moulin.triton_repo.ensemble.components import Backend
from moulin.triton_repo.ensemble.open_part import open_tied_streams
from moulin.triton_repo.ensemble.repository import build_offline_ensemble, build_tied_streams
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.engine.blank_bias import OFFLINE, STREAMING, THRESHOLD, Utterance, bias_for, raised_export
from tests.tensorrt_stand_in import install
from tests.triton_repo.shim_args import shim_args

from .test_config import request, texts
from .test_streams import Repository, heard
from .without_triton import read_config, run_ensemble

pytestmark = pytest.mark.needs("torch")

SKIP: dict[str, Any] = {"blank_skip": THRESHOLD}
CHANGES: list[dict[str, Any]] = [{"method": method, **skip} for method in METHODS for skip in ({}, SKIP)]
BACKENDS: tuple[Backend, ...] = ("python", "onnxruntime", "tensorrt")


@dataclass(frozen=True)
class Both:
    """moulin's exports with both heads, which skip 60 % of the frames of the first waveform. All waveforms have one
    length: under Triton's own backends padding reaches into shorter ones, as in Icefall."""

    offline: Path
    live: Path
    waveforms: list[Floats]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    to = tmp_path_factory.mktemp("both")
    waveforms = [read_audio(clip.audio)[4_000:44_001] for clip in demo_clips()[:2]]
    bias = bias_for(0.6, Utterance(waveforms[0]).log_probs)
    return Both(raised_export(OFFLINE, bias, to / "offline"), raised_export(STREAMING, bias, to / "live"), waveforms)


def engine_for(backend: Backend, spec: Any) -> EngineChoice:
    if backend != "tensorrt":
        return EngineChoice(threads=1)
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=16, max_audio_sec=10)
    return EngineChoice(device="cuda", threads=1, plan=plan)


def offline_there(model: Path, head: Head | None, backend: Backend, to: Path, asked: list[bytes], both: Both) -> Any:
    spec = load_model(model, head=head)
    options = OfflineOptions(engine=engine_for(backend, spec), max_batch=16, max_audio_sec=10)
    build_offline_ensemble(spec, to, options, backend=backend)
    tensors = request(*both.waveforms, np.zeros(0, np.float32))
    rows = len(tensors["WAV"])
    requests = [{**tensors, "OPTIONS": np.array([[each]] * rows, np.object_)} for each in asked]
    return [texts(answer) for answer in run_ensemble(to, "transducer", requests)]


def offline_here(model: Path, head: Head | None, options: Sequence[DecodingOptions], both: Both) -> list[list[str]]:
    waveforms = [*both.waveforms, np.zeros(0, np.float32)]
    with open_recognizer(model, EngineChoice(head=head)) as recognizer:
        return [[it.text for it in recognizer.transcribe(waveforms, [each] * len(waveforms))] for each in options]


@pytest.fixture(autouse=True)
def tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "cache")


@pytest.mark.parametrize("backend", BACKENDS)
def test_utterances_skip_and_do_not(backend: Backend, both: Both, tmp_path: Path) -> None:
    asked = [json.dumps(each).encode() for each in CHANGES]
    found = offline_there(both.offline, None, backend, tmp_path / "repository", asked, both)
    assert found == offline_here(both.offline, None, [DecodingOptions(**each) for each in CHANGES], both)
    assert found[0] != found[1]
    assert all(found[1][:2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["both", "Icefall's"])
def test_the_head_is_decoded_offline(form: str, backend: Backend, both: Both, tmp_path: Path) -> None:
    model, repository = both.offline if form == "both" else OFFLINE, tmp_path / "repository"
    asked = [json.dumps({"method": method}).encode() for method in METHODS]
    found = offline_there(model, "ctc", backend, repository, asked, both)
    assert found == offline_here(model, "ctc", [DecodingOptions(method) for method in METHODS], both)
    assert any(found[0]) == (form != "both")  # whose blank is raised
    assert {folder.name for folder in repository.iterdir()} == {"transducer", "feature_extractor", "encoder", "scorer"}


def live_recognizer(model: Path, head: Head | None, backend: Backend, repository: Path) -> Any:
    spec = load_model(model, head=head)
    options = StreamingOptions(max_batch=4, engine=engine_for(backend, spec))
    folder = build_tied_streams(spec, repository, options, backend=backend)
    return open_tied_streams(
        ShimParameters.read(shim_args(folder), StreamingOptions), Repository(repository).ask, capacity=2
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_streams_skip_and_do_not(backend: Backend, both: Both, tmp_path: Path) -> None:
    tied = live_recognizer(both.live, None, backend, tmp_path / "repository")
    fused = open_stream_recognizer(both.live, EngineChoice(threads=1), max_streams=1)
    found = [heard(tied, both.waveforms[0], changes) for changes in CHANGES]
    assert found == [heard(fused, both.waveforms[0], changes) for changes in CHANGES]
    assert found[0] != found[1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["both", "Icefall's"])
def test_the_head_is_decoded_in_streams(form: str, backend: Backend, both: Both, tmp_path: Path) -> None:
    model = both.live if form == "both" else STREAMING
    tied = live_recognizer(model, "ctc", backend, tmp_path / "repository")
    fused = open_stream_recognizer(model, EngineChoice(threads=1, head="ctc"), max_streams=1)
    for method in METHODS:
        assert heard(tied, both.waveforms[0], {"method": method}) == heard(fused, both.waveforms[0], {"method": method})
    with pytest.raises(OptionsError, match="the CTC head itself is decoded"):
        tied.open(tied.options.updated(SKIP))
    assert {folder.name for folder in (tmp_path / "repository").iterdir()} == {"transducer", "encoder"}


def test_an_encoder_for_tritons_own_backend_gives_nothing_else(both: Both, tmp_path: Path) -> None:
    """Files and configs have the same outputs; that of the head is one number a frame."""
    for model, head, outputs in (
        (both.offline, None, ["encoder_out", "encoder_out_lens", "blank_log_probs"]),
        (both.offline, "ctc", ["encoder_out_lens", "ctc_log_probs"]),
    ):
        spec = load_model(model, head="ctc" if head else None)
        build_offline_ensemble(spec, tmp_path, OfflineOptions(), backend="onnxruntime")
        file = onnx.load(tmp_path / "encoder" / "1" / "model.onnx")
        assert [tensor.name for tensor in file.graph.output] == outputs
        config = read_config(tmp_path / "encoder")
        assert {tensor.name for tensor in config.output} == set(outputs)
    assert not (tmp_path / "decoder").exists(), "of the ensemble that was there"
    wider = [list(tensor.dims) for tensor in config.output]
    assert [-1, 47] in wider


def test_what_asks_for_a_head_that_is_not_there_is_refused(tmp_path: Path) -> None:
    spec = load_model(BUNDLES / "zipformer2-offline")
    skipping = OfflineOptions(decoding=DecodingOptions(blank_skip=0.9))
    with pytest.raises(OptionsError, match="needs a CTC head beside the transducer"):
        build_offline_ensemble(spec, tmp_path, skipping)
    with pytest.raises(OptionsError, match="the CTC head itself is decoded"):
        build_offline_ensemble(load_model(OFFLINE, head="ctc"), tmp_path, skipping)
    assert not list(tmp_path.iterdir())
