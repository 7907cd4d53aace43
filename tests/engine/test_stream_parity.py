"""Transcripts of streams against two peers with the same files: sherpa-onnx's online recogniser, which has its own
features, states and search, and a plain loop without batches, slots or splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import sherpa_onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import ModelSpec, OnnxModelSpec, StreamingSpec
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES, STREAMING
from tests.streaming.plain_encoder import PlainEncoder, plain_session
from tests.streaming.splits import EVERYTHING_AT_ONCE, SPLITS, pieces

Heard = list[tuple[str, float]]
"""Tokens, with a space for the word marker, and the times at which they were emitted."""

NUM_RECORDINGS = 5


@pytest.fixture(scope="module")
def recordings(clips: list[Floats], noises: list[Floats]) -> list[Floats]:
    """One to two seconds of speech and of noise."""
    found = [clips[0][8_000:40_000], clips[3][16_000:40_001], clips[5][10_000:43_333], *noises[:2]]
    assert len(found) == NUM_RECORDINGS
    return found


def options(method: Method) -> StreamOptions:
    return StreamOptions(DecodingOptions(method, beam=4), endpoint=False)


def sherpa(spec: ModelSpec, method: Method) -> Any:
    assert isinstance(spec, OnnxModelSpec)
    files = spec.files
    return sherpa_onnx.OnlineRecognizer.from_transducer(
        encoder=str(files.encoder),
        decoder=str(files.decoder),
        joiner=str(files.joiner),
        tokens=str(files.tokens),
        num_threads=1,
        decoding_method="greedy_search" if method == "greedy" else method,
        max_active_paths=4,
    )


def counted_as_sherpa_does(spec: OnnxModelSpec) -> OnnxModelSpec:
    """sherpa-onnx gives the Conformer as `processed_lens` the feature frames before the chunk, where Icefall gives
    encoder frames, a quarter of that. So it unmasks the zeros of the left context too early, and only a peer that does
    the same has the same text."""
    streaming = streaming_spec(spec)
    states = [
        replace(state, increment=streaming.chunk_frames) if state.increment else state for state in streaming.states
    ]
    return replace(spec, streaming=replace(streaming, states=tuple(states)))


def streaming_spec(spec: ModelSpec) -> StreamingSpec:
    assert spec.streaming is not None
    return spec.streaming


def silence_for(windows: int, window_frames: int, chunk_frames: int, audio: Floats) -> Floats:
    """`audio` with enough silence for sherpa-onnx to see `windows` windows; it waits for one frame more."""
    length = ((windows - 1) * chunk_frames + window_frames + 1) * 160
    return np.pad(audio, (0, max(0, length - len(audio))))


@dataclass
class Pair:
    """A recognizer and one or two peers. The peers' texts are kept, as they do not depend on splits."""

    ours: StreamRecognizer
    recordings: list[Floats]

    def __post_init__(self) -> None:
        self._theirs: dict[tuple[Method, int], Heard] = {}

    @cached_property
    def _sherpa(self) -> dict[Method, Any]:
        return {method: sherpa(self.ours.spec, method) for method in METHODS}

    def heard(self, method: Method, number: int, split: Sequence[int]) -> Heard:
        stream = self.ours.open(options(method))
        for piece in pieces(self.recordings[number], split):
            self.ours.accept(stream, piece)
            while self.ours.is_ready(stream):
                self.ours.step([stream])
        self.ours.finish(stream)
        while self.ours.is_ready(stream):
            self.ours.step([stream])
        found = [closed.hypothesis for closed in stream.unreported]
        self.ours.close(stream)
        symbols = self.ours.spec.tokens.symbols
        return [
            (symbols[token].replace("▁", " "), frame * 0.04)
            for hypothesis in found
            for token, frame in zip(hypothesis.tokens, hypothesis.frames, strict=True)
        ]

    def num_windows(self, audio: Floats) -> int:
        """With 0.3 s of silence, of which the end is only seen by looking ahead."""
        streaming = streaming_spec(self.ours.spec)
        look_ahead = streaming.window_frames - streaming.chunk_frames
        return -(-((len(audio) + 4800 + 80) // 160 - look_ahead) // streaming.chunk_frames)

    def heard_by_sherpa(self, method: Method, number: int) -> Heard:
        if (method, number) not in self._theirs:
            audio = self.recordings[number]
            streaming = streaming_spec(self.ours.spec)
            recognizer = self._sherpa[method]
            stream = recognizer.create_stream()
            windows = self.num_windows(audio)
            stream.accept_waveform(16000, silence_for(windows, streaming.window_frames, streaming.chunk_frames, audio))
            stream.input_finished()
            steps = 0
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
                steps += 1
            assert steps == windows
            self._theirs[method, number] = list(
                zip(recognizer.tokens(stream), recognizer.timestamps(stream), strict=True)
            )
        return self._theirs[method, number]


def same(ours: Heard, theirs: Heard) -> None:
    assert [token for token, _ in ours] == [token for token, _ in theirs]
    np.testing.assert_allclose([time for _, time in ours], [time for _, time in theirs], atol=1e-5)


@pytest.fixture(scope="module", params=[*STREAMING, "demo"])
def pair(request: pytest.FixtureRequest, recordings: list[Floats]) -> Pair:
    spec = load_bundle(DEMO_STREAMING_MODEL if request.param == "demo" else BUNDLES / request.param)
    spec = counted_as_sherpa_does(spec)
    return Pair(
        StreamRecognizer(spec, HostStepper(spec, OnnxRuntimeStreamRunner(spec, threads=1, capacity=1))), recordings
    )


# -------------------------------------------------------------------------------------------------------- sherpa-onnx


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(split=SPLITS, number=st.integers(0, NUM_RECORDINGS - 1))
def test_hears_what_sherpa_onnx_hears_for_any_split(pair: Pair, method: Method, split: list[int], number: int) -> None:
    same(pair.heard(method, number, split), pair.heard_by_sherpa(method, number))


@pytest.mark.parametrize("split", [EVERYTHING_AT_ONCE, (0, 1), (5120,)], ids=["everything", "0-1", "320-ms"])
def test_hears_what_sherpa_onnx_hears_for_the_splits_at_the_edges(pair: Pair, split: tuple[int, ...]) -> None:
    same(pair.heard("greedy", 3, split), pair.heard_by_sherpa("greedy", 3))


@pytest.mark.parametrize("method", METHODS)
def test_hears_what_sherpa_onnx_hears_in_every_recording(pair: Pair, method: Method) -> None:
    heard = [pair.heard(method, number, (5120,)) for number in range(NUM_RECORDINGS)]
    for number, tokens in enumerate(heard):
        same(tokens, pair.heard_by_sherpa(method, number))
    # Random models talk all the time; the real one hears three people say a few digits.
    assert sum(len(tokens) for tokens in heard) >= 10


# ------------------------------------------------------------------------------------------------------- a plain loop


@pytest.mark.parametrize("name", [*STREAMING, "demo"])
def test_hears_what_the_recipes_own_loop_hears(name: str, recordings: list[Floats]) -> None:
    """With `processed_lens` as it was trained, and the searches that define the others."""
    spec = load_bundle(DEMO_STREAMING_MODEL if name == "demo" else BUNDLES / name)
    runner = OnnxRuntimeStreamRunner(spec, threads=1, capacity=1)
    pair = Pair(StreamRecognizer(spec, HostStepper(spec, runner)), recordings)
    session = plain_session(spec.encoder.file)
    for number, audio in enumerate(recordings):
        encoder = PlainEncoder(session)
        features = Fbank()(np.pad(audio, (0, 32_000)))
        windows = [
            features[chunk * encoder.chunk_frames :][: encoder.window_frames]
            for chunk in range(pair.num_windows(audio))
        ]
        encoder_out = np.concatenate([encoder(window) for window in windows])
        for method in METHODS:
            rows = RowOptions.of([options(method).decoding])
            [hypothesis] = search_reference(runner, encoder_out[None], np.array([len(encoder_out)]), rows).hypotheses()
            wanted = [
                (spec.tokens.symbols[token].replace("▁", " "), frame * 0.04)
                for token, frame in zip(hypothesis.tokens, hypothesis.frames, strict=True)
            ]
            same(pair.heard(method, number, (4000, 1, 7000)), wanted)
