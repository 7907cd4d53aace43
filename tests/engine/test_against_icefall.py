"""Checkpoints with their training's parameters, run as they are, say what Icefall's exports of them say; and what these
say is what sherpa-onnx hears in them, an engine of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sherpa_onnx

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import CheckpointSpec, OnnxModelSpec
from moulin.bundle.stored import write_stored
from moulin.bundle.transducer import load_with_facts
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.recognizer import Recognizer
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES, MORE_OFFLINE, MORE_STREAMING
from tests.icefall import CASES, Case, with_parameters

SAMPLES = slice(8_000, 56_003)
"""Three seconds of a recording."""


@pytest.fixture(scope="module")
def recordings(clips: list[Floats]) -> list[Floats]:
    return [clips[0][SAMPLES], clips[3][SAMPLES], clips[5][: SAMPLES.start]]


def heard(recognizer: StreamRecognizer, audio: Floats) -> list[str]:
    """Tokens of one stream, with a space for the word marker."""
    stream = recognizer.open()
    for first in range(0, len(audio), 5120):
        recognizer.accept(stream, audio[first : first + 5120])
    recognizer.finish(stream)
    while recognizer.is_ready(stream):
        recognizer.step([stream])
    found = [token for closed in stream.unreported for token in closed.hypothesis.tokens]
    recognizer.close(stream)
    return [recognizer.spec.tokens.symbols[token].replace("▁", " ") for token in found]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_checkpoint_says_what_icefalls_export_says(case: Case, tmp_path: Path, recordings: list[Floats]) -> None:
    """Kept in moulin's own form, which is what `moulin serve` runs where a person says something of a checkpoint."""
    loaded = load_with_facts([with_parameters(case, tmp_path / "epoch-1.pt")], recipe=case.beside_parameters)
    shutil.copy(case.checkpoint.with_name("tokens.txt"), tmp_path)
    write_stored(loaded.transducer, tmp_path / "model.safetensors")
    if case.streaming:
        options = StreamOptions(endpoint=False)
        ours = open_stream_recognizer(tmp_path, options=options, max_streams=1)
        onnx = open_stream_recognizer(BUNDLES / case.bundle, options=options, max_streams=1)
        assert isinstance(ours.spec, CheckpointSpec)
        assert ours.spec.doubts == ()
        assert ours.spec.streaming is not None
        assert onnx.spec.streaming is not None
        assert ours.spec.streaming.window_frames == onnx.spec.streaming.window_frames
        said = [heard(ours, audio) for audio in recordings]
        assert said == [heard(onnx, audio) for audio in recordings]
        assert sum(map(len, said)) > 20
        return
    with open_recognizer(tmp_path) as ours_offline, open_recognizer(BUNDLES / case.bundle) as onnx_offline:
        texts = [transcript.text for transcript in ours_offline.transcribe(recordings)]
        assert texts == [transcript.text for transcript in onnx_offline.transcribe(recordings)]
        assert all(texts)


def sherpa(kind: Any, spec: OnnxModelSpec) -> Any:
    files = spec.files
    return kind.from_transducer(
        encoder=str(files.encoder),
        decoder=str(files.decoder),
        joiner=str(files.joiner),
        tokens=str(files.tokens),
        num_threads=1,
    )


@pytest.mark.parametrize("bundle", MORE_OFFLINE)
def test_sherpa_onnx_hears_the_same_in_utterances(bundle: str, recordings: list[Floats]) -> None:
    with open_recognizer(BUNDLES / bundle, tail_padding_sec=0.0) as ours:
        assert isinstance(ours, Recognizer)
        assert isinstance(ours.spec, OnnxModelSpec)
        theirs = sherpa(sherpa_onnx.OfflineRecognizer, ours.spec)
        for audio, transcript in zip(recordings, ours.transcribe(recordings), strict=True):
            stream = theirs.create_stream()
            stream.accept_waveform(16000, audio)
            theirs.decode_stream(stream)
            # sherpa-onnx prints <sos/eos> where a random model says it; moulin prints no special symbol.
            assert transcript.text == stream.result.text.replace("<sos/eos>", "").strip()
            assert transcript.text


@pytest.mark.parametrize("bundle", MORE_STREAMING)
def test_sherpa_onnx_hears_the_same_in_streams(bundle: str, recordings: list[Floats]) -> None:
    spec = load_bundle(BUNDLES / bundle)
    assert spec.streaming is not None
    # sherpa-onnx counts a Conformer's `processed_lens` in feature frames, Icefall in encoder frames.
    states = [replace(state, increment=4 * state.increment) for state in spec.streaming.states]
    spec = replace(spec, streaming=replace(spec.streaming, states=tuple(states)))
    runner = OnnxRuntimeStreamRunner(spec, threads=1, capacity=1)
    ours = StreamRecognizer(spec, HostStepper(spec, runner), options=StreamOptions(endpoint=False))
    theirs = sherpa(sherpa_onnx.OnlineRecognizer, spec)
    for audio in recordings:
        stream = theirs.create_stream()
        stream.accept_waveform(16000, audio)
        # As much silence as both decode: moulin appends what its last window needs.
        stream.accept_waveform(16000, [0.0] * 16_000)
        stream.input_finished()
        while theirs.is_ready(stream):
            theirs.decode_stream(stream)
        found, wanted = heard(ours, audio), list(theirs.tokens(stream))
        assert found == wanted[: len(found)]
        assert found
