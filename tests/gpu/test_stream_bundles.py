"""Streams of every streaming bundle on the GPU engine, from its checkpoint and from its ONNX files, against the CPU."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from moulin.arrays import Floats
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.bundle.transducer import transducer_of
from moulin.decoding.options import DecodingOptions
from moulin.engine.gpu.stepper import GpuStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from tests.bundles import BUNDLES

STREAMS = 12 if torch.cuda.is_available() else 3  # a step takes the interpreter seconds
OPTIONS = [
    StreamOptions(DecodingOptions(blank_penalty=1.0), endpoint=False),
    StreamOptions(DecodingOptions("modified_beam_search", beam=3), rules=EndpointRules(0.5, 0.2, 0.5)),
    StreamOptions(DecodingOptions("modified_beam_search", beam=7, temperature=1.5), endpoint=False),
]
"""The last beam is too wide for the card."""


def checkpoint(bundle: str) -> CheckpointSpec:
    return replace(load_checkpoint_spec(BUNDLES / bundle / "epoch-1.pt", streaming=True), run_in="fp32")


def files(bundle: str) -> OnnxModelSpec:
    (encoder,) = (file for file in (BUNDLES / bundle).glob("encoder*.onnx") if "int8" not in file.name)
    return replace(load_bundle(encoder), run_in="fp32")


def audio(seed: int, spec: ModelSpec) -> Floats:
    """Noise that comes and goes, for two or three chunks, or for more that are short."""
    assert spec.streaming is not None
    rng = np.random.default_rng(seed)
    chunk = max(spec.streaming.chunk_frames, 20) * 160
    count = spec.streaming.window_frames * 160 + int((1.3 + seed % 2) * chunk)
    loudness = np.repeat(rng.choice([0.01, 0.3], count // 800 + 1), 800)[:count]
    noise: Floats = (loudness * rng.normal(0, 1, count)).astype(np.float32)
    return noise


def said(recognizer: StreamRecognizer, stream: Stream) -> list[Any]:
    """The content of an update without the confidences, which differ in their last digits."""
    update = recognizer.update(stream)
    words = [(s.text, s.is_final, [(w.word, w.start_sec, w.end_sec) for w in s.words]) for s in update.segments]
    hypothesis = recognizer._said.hypothesis(stream.slot)
    return [words, update.endpoint, update.is_final, list(hypothesis.tokens), list(hypothesis.frames)]


def hear(recognizer: StreamRecognizer, samples: Floats, options: StreamOptions, pieces: list[int]) -> list[list[Any]]:
    """All updates of a stream whose audio comes in `pieces`, alone."""
    stream, updates, at = recognizer.open(options), [], 0
    for piece in pieces:
        recognizer.accept(stream, samples[at : at + piece])
        at += piece
        while recognizer.is_ready(stream):
            recognizer.step([stream])
        updates.append(said(recognizer, stream))
    recognizer.close(stream)
    return updates


def together(
    recognizer: StreamRecognizer, streams: list[tuple[Floats, StreamOptions, list[int]]], places: int
) -> list[list[list[Any]]]:
    """The updates of each of the streams, of which `places` are open at a time and take steps together."""
    updates: list[list[list[Any]]] = [[] for _ in streams]
    waiting, going = list(range(len(streams))), dict[int, Stream]()
    while waiting or going:
        for number in waiting[: places - len(going)]:
            going[number] = recognizer.open(streams[number][1])
            waiting.remove(number)
        for number, stream in going.items():
            samples, _, pieces = streams[number]
            begin = sum(pieces[: len(updates[number])])
            recognizer.accept(stream, samples[begin : begin + pieces[len(updates[number])]])
        while ready := [stream for stream in going.values() if recognizer.is_ready(stream)]:
            recognizer.step(ready)
        for number, stream in list(going.items()):
            updates[number].append(said(recognizer, stream))
            if len(updates[number]) == len(streams[number][2]):
                recognizer.close(going.pop(number))
    return updates


@pytest.mark.parametrize(
    ("bundle", "spec_of"),
    [
        ("conformer-streaming", checkpoint),
        ("lstm-streaming", checkpoint),
        ("zipformer-streaming", checkpoint),
        ("conformer-streaming-right2", files),
        ("lstm-streaming", files),
        ("zipformer2-streaming-context1", files),
        # The weights are those of the checkpoint, as tests/bundle/onnx_weights shows.
        pytest.param("conformer-streaming", files, marks=pytest.mark.slow),
        pytest.param("zipformer-streaming", files, marks=pytest.mark.slow),
        pytest.param("zipformer2-streaming", files, marks=pytest.mark.slow),
    ],
)
def test_streams_have_the_words_of_the_cpu(
    bundle: str, spec_of: Callable[[str], ModelSpec], device: torch.device
) -> None:
    """Streams come and go in two slots of three, greedy and with beams, with audio in any pieces."""
    spec, rng = spec_of(bundle), random.Random(0)
    engine = GpuStepper(spec, transducer_of(spec), capacity=3, max_batch=3, device=str(device), beam=3)
    streams = []
    for seed in range(STREAMS):
        samples = audio(seed, spec)
        cuts = sorted(rng.sample(range(1, len(samples)), 3))
        pieces = [end - begin for begin, end in zip([0, *cuts], [*cuts, len(samples)], strict=True)]
        streams.append((samples, OPTIONS[seed % len(OPTIONS)], pieces))
    with open_stream_recognizer(spec.file, max_streams=1) as plain:
        wanted = [hear(plain, *stream) for stream in streams]
    with StreamRecognizer(spec, engine) as ours:
        assert together(ours, streams, 2) == wanted
    assert sum(len(update[3]) for updates in wanted for update in updates) > 10
