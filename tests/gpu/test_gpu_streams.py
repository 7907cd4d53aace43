"""Streams whose states and searches are on the card against those on the host: the same words in any batches.

On a GPU by `GpuStepper`, in fp32; elsewhere by its plain twin, and by `GpuStepper` for two chunks.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from moulin.arrays import Floats
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.found import Found
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.options import MAX_BEAM, METHODS, DecodingOptions, Method
from moulin.engine.gpu.stepper import GpuStepper
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.errors import AudioError, EngineError, StreamError, StreamsFull
from moulin.live_transcript import LiveTranscript
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from moulin.streaming.turns import Turns
from tests.bundles import BUNDLES

from .plain_stepper import PlainStepper

SPEC = replace(load_checkpoint_spec(BUNDLES / "zipformer2-streaming", streaming=True), run_in="fp32")
CAPACITY = 3
OPTIONS = [
    StreamOptions(endpoint=False),
    StreamOptions(rules=EndpointRules(0.6, 0.3, 9.0)),
    StreamOptions(DecodingOptions(blank_penalty=2.0, temperature=1.5), rules=EndpointRules(9.0, 9.0, 0.7)),
    StreamOptions(DecodingOptions("modified_beam_search", beam=2), rules=EndpointRules(0.5, 0.2, 0.9)),
    StreamOptions(DecodingOptions("modified_beam_search", temperature=2.0), rules=EndpointRules(9.0, 9.0, 0.6)),
    StreamOptions(DecodingOptions("modified_beam_search", beam=5), endpoint=False),
]


@pytest.fixture(scope="module")
def plain() -> StreamRecognizer:
    return StreamRecognizer(
        SPEC, HostStepper(SPEC, TorchStreamRunner(SPEC, load_transducer([SPEC.checkpoint]), capacity=1))
    )


@pytest.fixture(scope="module")
def ours() -> StreamRecognizer:
    return StreamRecognizer(SPEC, on_gpu(CAPACITY) if torch.cuda.is_available() else PlainStepper(SPEC, CAPACITY))


def on_gpu(capacity: int) -> GpuStepper:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return GpuStepper(SPEC, load_transducer([SPEC.checkpoint]), capacity=capacity, max_batch=capacity, device=device)


def audio(seed: int, duration_sec: float) -> Floats:
    """Noise that comes and goes."""
    rng = np.random.default_rng(seed)
    count = round(duration_sec * 16000)
    loudness = np.repeat(rng.choice([0.0, 0.01, 0.3], count // 800 + 1), 800)[:count]
    noise: Floats = (loudness * rng.normal(0, 1, count)).astype(np.float32)
    return noise


def updates_of(recognizer: StreamRecognizer, stream: Stream, live: LiveTranscript) -> list[Any]:
    """The content of an update without the confidences, which differ in their last digits."""
    update = recognizer.update(stream)
    live.apply(update)
    segments = [
        (s.number, s.text, s.is_final, [(w.word, w.start_sec, w.end_sec) for w in s.words]) for s in update.segments
    ]
    return [segments, update.endpoint, update.is_final, update.duration_sec, recognizer.text(stream), live.text]


def alone(
    recognizer: StreamRecognizer, samples: Floats, options: StreamOptions, pieces: list[int], *, finish: bool = True
) -> list[Any]:
    """All updates of a stream whose audio comes in `pieces`."""
    stream, live, said, at = recognizer.open(options), LiveTranscript(), [], 0
    for piece in pieces:
        recognizer.accept(stream, samples[at : at + piece])
        at += piece
        while recognizer.is_ready(stream):
            recognizer.step([stream])
        said.append(updates_of(recognizer, stream, live))
    if finish:
        recognizer.finish(stream)
        while recognizer.is_ready(stream):
            recognizer.step([stream])
        said.append(updates_of(recognizer, stream, live))
    recognizer.close(stream)
    return said


def given(recognizer: StreamRecognizer, stream: Stream) -> int:
    """Samples that a stream has been given so far."""
    return int(recognizer.stepper.inbox.num_samples[stream.slot])


def split(total: int, rng: random.Random) -> list[int]:
    pieces: list[int] = []
    while sum(pieces) < total:
        pieces.append(min(rng.choice([0, 100, 3000, 5120, 9000, 30_000]), total - sum(pieces)))
    return pieces


def test_any_company_and_any_split(ours: StreamRecognizer, plain: StreamRecognizer) -> None:
    """Streams of all kinds come and go in three slots; a stream's updates are compared at each of its pieces."""
    rng = random.Random(0)
    waiting = [(seed, 0.3 + 0.55 * (seed % 5), OPTIONS[seed % len(OPTIONS)]) for seed in range(24)]
    going: dict[Stream, tuple[list[int], Floats, list[Any], list[Any], LiveTranscript]] = {}
    compared = said = endpoints = 0
    while waiting or going:
        while waiting and len(going) < CAPACITY:
            seed, duration_sec, options = waiting.pop()
            samples = audio(seed, duration_sec)
            pieces = split(len(samples), rng)
            wanted = alone(plain, samples, options, pieces)
            said += len(wanted[-1][-2]) > 0
            endpoints += sum(update[1] for update in wanted)
            going[ours.open(options)] = pieces, samples, wanted, [], LiveTranscript()
        chosen = rng.sample(list(going), rng.randint(1, len(going)))
        for stream in chosen:
            pieces, samples, *_ = going[stream]
            if pieces:
                at = given(ours, stream)
                ours.accept(stream, samples[at : at + pieces.pop(0)])
            else:
                ours.finish(stream)
        while ready := [stream for stream in chosen if ours.is_ready(stream)]:
            ours.step(ready)
        for stream in chosen:
            *_, wanted, got, live = going[stream]
            got.append(updates_of(ours, stream, live))
            assert got[-1] == wanted[len(got) - 1]
            compared += 1
            if ours.finished(stream):
                assert len(got) == len(wanted)
                ours.close(stream)
                del going[stream]
    assert compared > 100
    assert said > 15
    assert endpoints > 10
    assert ours.num_open == 0


def test_many_accept_at_once(ours: StreamRecognizer, plain: StreamRecognizer) -> None:
    """Rows at different places of their rings, with and without room for the audio, float32 and int16."""
    samples = [audio(seed, 4.0) for seed in range(CAPACITY)]
    exact = [np.round(each * 8192).astype(np.int16) for each in samples]
    streams = [ours.open(OPTIONS[0]) for _ in samples]
    heads = [0, 1111, 17_000]  # the last more than its ring takes
    for stream, each, head in zip(streams, exact, heads, strict=True):
        ours.accept(stream, each[:head].astype(np.float32) / 32768)
    given = 0
    for _ in range(6):
        rows = np.stack([each[head + given : head + given + 5120] for each, head in zip(exact, heads, strict=True)])
        ours.accept_many(streams, rows if given % 2 else rows.astype(np.float32) / 32768)
        given += 5120
        while ready := [stream for stream in streams if ours.is_ready(stream)]:
            ours.step(ready)
    for stream, each, head in zip(streams, exact, heads, strict=True):
        ours.finish(stream)
        while ours.is_ready(stream):
            ours.step([stream])
        heard = each[: head + given].astype(np.float32) / 32768
        assert ours.text(stream) == alone(plain, heard, OPTIONS[0], [len(heard)])[-1][-2]
        ours.close(stream)


def test_what_is_no_audio_changes_nothing(ours: StreamRecognizer) -> None:
    streams = [ours.open(), ours.open()]
    rows = np.zeros((2, 8000), np.float32)
    rows[1, 77] = np.nan
    with pytest.raises(AudioError, match="waveform 1: expected finite samples, got nan at sample 77"):
        ours.accept_many(streams, rows)
    with pytest.raises(AudioError, match="shape"):
        ours.accept_many(streams, rows[0])
    with pytest.raises(AudioError, match="finite"):
        ours.accept(streams[1], rows[1])
    assert [given(ours, stream) for stream in streams] == [0, 0]
    ours.finish(streams[0])
    with pytest.raises(StreamError, match="has been finished"):
        ours.accept_many(streams, rows[:, :10])
    ours.open()
    with pytest.raises(StreamsFull):
        ours.open()
    for slot in range(CAPACITY):
        ours._slots.release(slot)


@pytest.mark.parametrize("method", METHODS)
def test_more_than_a_segment_usually_says(ours: StreamRecognizer, plain: StreamRecognizer, method: Method) -> None:
    """Endless speech without endpoints."""
    small = OpenHypotheses(CAPACITY, MAX_BEAM, ours.spec.context_size, max_tokens=20)
    before, ours._said = ours._said, small
    stream = ours.open(StreamOptions(DecodingOptions(method, blank_penalty=9.0), endpoint=False))
    samples = audio(3, 6.0)
    for at in range(0, len(samples), 5120):
        ours.accept(stream, samples[at : at + 5120])
        while ours.is_ready(stream):
            ours.step([stream])
    hypothesis = ours._said.hypothesis(stream.slot)
    assert len(hypothesis.tokens) == len(hypothesis.frames) == len(hypothesis.log_probs) > 60
    assert list(hypothesis.frames) == sorted(set(hypothesis.frames))
    assert ours.text(stream) == ours.spec.tokens.text(hypothesis.tokens)
    assert ours.text(stream) == alone(plain, samples, stream.options, [len(samples)], finish=False)[-1][-2]
    ours.close(stream)
    ours._said = before


def test_the_card_hears_it_too(plain: StreamRecognizer) -> None:
    """Greedy search, a beam, and a beam that is too wide for the card, side by side."""
    ours = StreamRecognizer(SPEC, on_gpu(3))
    beams = [StreamOptions(DecodingOptions("modified_beam_search", beam), endpoint=False) for beam in (4, 7)]
    samples, some = audio(1, 0.8), [OPTIONS[0], *beams]
    streams = [ours.open(options) for options in some]
    for stream in streams:
        ours.accept(stream, samples)
    while ready := [stream for stream in streams if ours.is_ready(stream)]:
        ours.step(ready)
    for stream, options in zip(streams, some, strict=True):
        reference = plain.open(options)
        plain.accept(reference, samples)
        while plain.is_ready(reference):
            plain.step([reference])
        heard, wanted = ours._said.hypothesis(stream.slot), plain._said.hypothesis(reference.slot)
        assert ours.stepper.inbox.num_taken[stream.slot] == 2
        assert (heard.tokens, heard.frames) == (wanted.tokens, wanted.frames)
        assert len(heard.tokens) > 3
        np.testing.assert_allclose(heard.log_probs, wanted.log_probs, atol=2e-3)
        assert heard.score == pytest.approx(wanted.score, abs=2e-2)
        ours.close(stream)
        plain.close(reference)


def test_a_precision_that_is_not_enough_is_said(ours: StreamRecognizer) -> None:
    """Only the stream that overflows has the error."""
    broken, well = ours.open(), ours.open()
    for stream in (broken, well):
        ours.accept(stream, audio(0, 0.5))
    ours.step([broken, well])
    ours._broken[broken.slot] = True
    with pytest.raises(EngineError, match="for a stream, got NaN or infinity"):
        ours.text(broken)
    ours.text(well)
    ours.close(broken)
    ours.close(well)
    ours.warm_up()


def test_warming_up_tells_of_a_precision_that_is_not_enough() -> None:
    class Overflowing(PlainStepper):
        def step(self, turns: Turns) -> Found:
            found = super().step(turns)
            found.scores[0] = np.nan
            return found

    with pytest.raises(EngineError, match="for streams, got NaN or infinity"):
        StreamRecognizer(SPEC, Overflowing(SPEC, 1)).warm_up()
