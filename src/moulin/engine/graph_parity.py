"""Comparison of an exported encoder with the same in another form or by another runtime, on speech."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank, FbankOptions
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import StreamingSpec
from moulin.demo.files import demo_speech

Feeds = Mapping[str, NDArray[Any]]
"""A graph's inputs by their names."""
Run = Callable[[list[str], Feeds], list[NDArray[Any]]]
"""The outputs of the given names for inputs."""

_FRAMES = 300
_PAIR = (160, 130)
"""Features of two utterances in a batch; the shorter one is padded."""
_CHUNKS = 2


def largest_difference(
    reference: Run,
    other: Run,
    graph: OnnxGraph,
    *,
    feature_dim: int,
    streaming: StreamingSpec | None,
    lengths: tuple[int, ...] = (),
) -> float:
    """The largest `relative_difference` of the outputs of `graph` between two ways to run it, on three seconds of
    speech at most.

    An offline encoder gets a batch of two utterances, and one of each of `lengths` in frames, at most 300; a streaming
    encoder two chunks. Raises whatever the two raise.
    """
    names = [tensor.name for tensor in graph.outputs]
    inputs = _chunks(graph, feature_dim, streaming) if streaming else _utterances(graph, feature_dim, lengths)
    largest = 0.0
    try:
        feeds = next(inputs)
        while True:
            wanted = dict(zip(names, reference(names, feeds), strict=True))
            found = dict(zip(names, other(names, feeds), strict=True))
            largest = max(largest, *(relative_difference(found[name], wanted[name]) for name in names))
            feeds = inputs.send(wanted)
    except StopIteration:
        return largest


def relative_difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference, relative to the largest value of `wanted` if that is above one; infinite for another
    shape, for different integers and where it is not a number."""
    if found.shape != wanted.shape or (wanted.dtype.kind != "f" and not np.array_equal(found, wanted)):
        return float("inf")
    difference = np.abs(found.astype(np.float64) - wanted)
    if not np.isfinite(difference).all():
        return float("inf")
    scale = max(1.0, float(np.abs(wanted.astype(np.float64)).max(initial=0.0)))
    return float(difference.max(initial=0.0)) / scale


_Inputs = Generator[Feeds, Feeds, None]
"""Inputs, one after the other; each time it is sent the outputs for the last ones."""


def _utterances(graph: OnnxGraph, feature_dim: int, lengths: tuple[int, ...]) -> _Inputs:
    features = _speech(feature_dim)
    longer, shorter = _PAIR
    batches = [(np.stack([features[:longer], features[-longer:]]), np.array([longer, shorter]))]
    if len(graph.inputs) == 1:  # without lengths: no batches
        batches = [(features[None, :longer], np.array([longer]))]
    batches += [(features[None, :length], np.array([length])) for length in lengths]
    for batch in batches:
        yield {
            tensor.name: value.astype(tensor.dtype, copy=False)
            for tensor, value in zip(graph.inputs, batch, strict=False)
        }


def _chunks(graph: OnnxGraph, feature_dim: int, streaming: StreamingSpec) -> _Inputs:
    """Chunk after chunk of one stream."""
    x, features = graph.input("x", 0), _speech(feature_dim)
    states = {
        state.name: np.zeros(_of_one_stream(state.shape, state.batch_axis), state.dtype) for state in streaming.states
    }
    for chunk in range(_CHUNKS):
        first = chunk * streaming.chunk_frames
        window = np.take(features, range(first, first + streaming.window_frames), axis=0, mode="wrap")
        outputs = yield {x.name: window[None].astype(x.dtype, copy=False), **states}
        states = {
            state.name: states[state.name] + state.increment if state.output is None else outputs[state.output]
            for state in streaming.states
        }


def _of_one_stream(shape: tuple[int, ...], batch_axis: int) -> list[int]:
    return [1 if axis == batch_axis else size for axis, size in enumerate(shape)]


@lru_cache
def _speech(feature_dim: int) -> Floats:
    """float32 [300, feature_dim]: the first three seconds of a recording that comes with moulin. Not to be changed."""
    fbank = Fbank(FbankOptions(num_mel_bins=feature_dim))
    samples = demo_speech()[0][: _FRAMES * fbank.options.frame_shift_samples]
    return fbank(samples)
