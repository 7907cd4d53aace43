"""Skipping of blank frames by the CTC head in streams: against a plain loop over Icefall's two streaming exports, of
which each head has a whole encoder, frames dropped by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank
from moulin.bundle.load import load_bundle
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import OptionsError
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from tests.bundles import BUNDLES
from tests.engine.blank_bias import SHARES, STREAMING, THRESHOLD, Raised, raised, raised_model
from tests.icefall import run, session
from tests.streaming.plain_encoder import PlainEncoder, plain_session

CHUNK = "-epoch-1-avg-1-chunk-16-left-64"


@dataclass(frozen=True)
class Recording:
    """A recording as Icefall's two streaming exports hear it, chunk by chunk, with the silence of a stream's end."""

    waveform: Floats

    @cached_property
    def windows(self) -> list[Floats]:
        count = -(-((len(self.waveform) + 4800 + 80) // 160 - 13) // 32)
        features = Fbank()(np.pad(self.waveform, (0, 32_000)))
        return [features[32 * chunk :][:45] for chunk in range(count)]

    @cached_property
    def encoder_out(self) -> Floats:
        encoder = PlainEncoder(plain_session(STREAMING / f"encoder{CHUNK}.onnx"))
        return np.concatenate([encoder(window) for window in self.windows])

    @cached_property
    def log_probs(self) -> Floats:
        ctc = session(STREAMING / f"ctc{CHUNK}.onnx")
        states = [
            np.zeros([size if isinstance(size, int) else 1 for size in value.shape], "fq"["int64" in value.type])
            for value in ctc.get_inputs()[1:]
        ]
        found = []
        for window in self.windows:
            log_probs, *states = run(ctc, window[None], *states)
            found.append(log_probs[0])
        return np.concatenate(found)

    def spoken(self, bias: float) -> NDArray[np.int64]:
        return np.flatnonzero(raised(self.log_probs, bias)[:, 0] < np.log(THRESHOLD))


@pytest.fixture(scope="module")
def heard(clips: list[Floats], noises: list[Floats]) -> list[Recording]:
    return [Recording(waveform) for waveform in (clips[0][8_000:60_000], clips[3][16_000:40_001], noises[0], noises[2])]


@pytest.fixture(scope="module", params=SHARES)
def model(request: pytest.FixtureRequest, heard: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Raised:
    log_probs = np.concatenate([recording.log_probs for recording in heard])
    return raised_model(STREAMING, request.param, log_probs, tmp_path_factory.mktemp("raised"))


def tokens_of(recognizer: StreamRecognizer, streams: Sequence[Stream]) -> list[tuple[list[int], list[int]]]:
    found = []
    for stream in streams:
        said = [closed.hypothesis for closed in stream.unreported]
        found.append(([t for each in said for t in each.tokens], [f for each in said for f in each.frames]))
        recognizer.close(stream)
    return found


def hear(
    recognizer: StreamRecognizer, recordings: Sequence[Recording], options: Sequence[StreamOptions], piece: int
) -> list[tuple[list[int], list[int]]]:
    """Tokens and frames of streams that go together, their audio in pieces."""
    streams = [recognizer.open(each) for each in options]
    longest = max(len(recording.waveform) for recording in recordings)
    for start in range(0, longest + piece, piece):
        for stream, recording in zip(streams, recordings, strict=True):
            if recognizer.finished(stream):
                continue
            recognizer.accept(stream, recording.waveform[start : start + piece])
            if start + piece >= len(recording.waveform):
                recognizer.finish(stream)
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.step(ready)
    return tokens_of(recognizer, streams)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_tokens_and_times_are_those_of_a_plain_loop(
    model: Raised, heard: list[Recording], form: str, method: Method
) -> None:
    skipping = StreamOptions(DecodingOptions(method, beam=4, blank_skip=THRESHOLD), endpoint=False)
    plain = StreamOptions(DecodingOptions(method, beam=4), endpoint=False)
    network = OnnxRuntimePrediction(load_bundle(STREAMING))
    rows = RowOptions.of([plain.decoding])
    recognizer = open_stream_recognizer(getattr(model, form), max_streams=8)
    assert recognizer.spec.streaming is not None
    assert recognizer.spec.streaming.chunk_frames == 32
    # Every recording twice, one of them with all of its frames, in one batch.
    found = hear(recognizer, [*heard, *heard], [*[skipping] * len(heard), *[plain] * len(heard)], 5_000)
    frames = skipped = 0
    for number, recording in enumerate(heard):
        everything = np.arange(len(recording.encoder_out))
        spoken = recording.spoken(model.bias)
        frames, skipped = frames + len(everything), skipped + len(everything) - len(spoken)
        for ours, left in ((found[number], spoken), (found[number + len(heard)], everything)):
            encoder_out = recording.encoder_out[None, left]
            [wanted] = search_reference(network, encoder_out, np.array([len(left)]), rows).hypotheses()
            assert ours == (list(wanted.tokens), left[list(wanted.frames)].tolist())
    assert skipped / frames == pytest.approx(model.share, abs=0.01)


def test_the_split_of_the_audio_changes_nothing(model: Raised, heard: list[Recording]) -> None:
    skipping = StreamOptions(DecodingOptions(blank_skip=THRESHOLD))  # with endpoints, which count skipped frames too
    recognizer = open_stream_recognizer(model.onnx, max_streams=4)
    first, *others = (hear(recognizer, heard, [skipping] * len(heard), piece) for piece in (100_000, 317, 5_120))
    assert all(other == first for other in others)


def test_a_model_without_the_head_refuses_the_stream_that_asks() -> None:
    recognizer = open_stream_recognizer(BUNDLES / "zipformer2-streaming", max_streams=1)
    with pytest.raises(OptionsError, match="needs a CTC head"):
        recognizer.open(StreamOptions(DecodingOptions(blank_skip=0.9)))
    recognizer.close(recognizer.open())  # no place was lost
    with pytest.raises(OptionsError, match="needs a CTC head"):
        open_stream_recognizer(STREAMING, options=StreamOptions(DecodingOptions(blank_skip=0.9)))
