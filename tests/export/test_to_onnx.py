from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import sherpa_onnx

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.bundle.onnx_files import OnnxFiles
from moulin.encoders.encoder import StreamingLayout
from moulin.evaluate.manifest import demo_clips
from moulin.export.to_onnx import operators
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.onnx_rewrites.variants import write_fp16
from moulin.tensorrt_engine.operators import refusals
from moulin.tensorrt_engine.sanitise import fold_constants
from tests.bundles import STREAMING

from .conftest import Exported

REFUSED_BY_TENSORRT = {"If", "Loop", "Scan", "NonZero", "ScatterND", "ScatterElements", "SequenceEmpty"}
"""Or taken only with a plugin, or only where it can be folded away."""


def pairs(exported: Exported) -> Iterator[tuple[Path, Path]]:
    ours, theirs = exported.files, exported.icefalls
    yield from ((ours.encoder, theirs.encoder), (ours.decoder, theirs.decoder), (ours.joiner, theirs.joiner))


def interface(file: Path) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs in their order: name, type, and sizes where they are fixed.

    Sizes that Icefall's exporter could not tell are any.
    """
    graph = onnx.load(file).graph

    def described(tensor: Any) -> Any:
        kind = tensor.type.tensor_type
        return tensor.name, kind.elem_type, len(kind.shape.dim)

    return [described(tensor) for tensor in graph.input], [described(tensor) for tensor in graph.output]


def metadata(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def test_names_order_and_types_are_icefalls(exported: Exported) -> None:
    for ours, theirs in pairs(exported):
        assert interface(ours) == interface(theirs)


def test_metadata_is_icefalls(exported: Exported) -> None:
    for ours, theirs in pairs(exported):
        assert metadata(ours) == metadata(theirs)


def test_no_operator_that_tensorrt_refuses(exported: Exported) -> None:
    """Users of Icefall's export have to comment lines of zipformer.py out for TensorRT."""
    files = exported.files
    assert not operators([files.encoder, files.decoder, files.joiner]) & REFUSED_BY_TENSORRT
    assert not refusals(fold_constants(onnx.load(files.encoder)))


def test_moulin_loads_it_as_it_loads_icefalls(exported: Exported) -> None:
    ours, theirs = load_bundle(exported.files.encoder), load_bundle(exported.icefalls.encoder)
    assert (ours.family, ours.mode, ours.feature_dim) == (theirs.family, theirs.mode, theirs.feature_dim)
    assert ours.streaming == theirs.streaming
    # Positions are computed from the length, not cut from a table.
    assert ours.max_frames is None


def features(length: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(-6, 4, (length, 80)).astype(np.float32)


def run(file: Path, *arrays: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    outputs: list[Any] = session.run(None, dict(zip(names, arrays, strict=True)))
    return outputs


def test_it_computes_what_icefalls_export_does(exported: Exported) -> None:
    if exported.layout is not None:
        _compare_streaming(exported.files, exported.icefalls, exported.layout)
        return
    for lengths in ([9], [10], [11], [130], [1000], [400, 9, 57, 399]):
        x = np.zeros((len(lengths), max(lengths), 80), np.float32)
        for row, length in enumerate(lengths):
            x[row, :length] = features(length, row)
        ours, our_lengths = run(exported.files.encoder, x, np.array(lengths))
        theirs, their_lengths = run(exported.icefalls.encoder, x, np.array(lengths))
        assert our_lengths.tolist() == their_lengths.tolist()
        for row, length in enumerate(our_lengths):
            np.testing.assert_allclose(ours[row, :length], theirs[row, :length], atol=1e-4, rtol=0)


def _compare_streaming(ours: OnnxFiles, theirs: OnnxFiles, layout: StreamingLayout) -> None:
    batch = 3
    states = [
        np.moveaxis(
            np.zeros((batch, *state.shape), np.int64 if "int" in str(state.dtype) else np.float32), 0, state.batch_axis
        )
        for state in layout.states
    ]
    our_states, their_states = states, states
    sessions = [onnxruntime.InferenceSession(files.encoder) for files in (ours, theirs)]
    names = [tensor.name for tensor in sessions[0].get_inputs()]
    for chunk in range(20):
        x = np.stack([features(layout.window_frames, 100 * chunk + row) for row in range(batch)])
        our_out, *our_next = sessions[0].run(None, dict(zip(names, [x, *our_states], strict=True)))
        their_out, *their_next = sessions[1].run(None, dict(zip(names, [x, *their_states], strict=True)))
        np.testing.assert_allclose(our_out, their_out, atol=1e-4, rtol=0)
        for ours_returned, theirs_returned in zip(our_next, their_next, strict=True):
            np.testing.assert_allclose(ours_returned, theirs_returned, atol=1e-4, rtol=0)
        our_states, their_states = (
            _next(layout, before, returned) for before, returned in ((our_states, our_next), (their_states, their_next))
        )


def _next(layout: StreamingLayout, states: list[Any], returned: list[Any]) -> list[Any]:
    following = iter(returned)
    return [
        state + spec.increment if spec.increment else next(following)
        for state, spec in zip(states, layout.states, strict=True)
    ]


def heard_by_sherpa(files: OnnxFiles, tokens: Path, *, streaming: bool) -> list[tuple[list[str], list[float]]]:
    kind = sherpa_onnx.OnlineRecognizer if streaming else sherpa_onnx.OfflineRecognizer
    recognizer = kind.from_transducer(
        encoder=str(files.encoder),
        decoder=str(files.decoder),
        joiner=str(files.joiner),
        tokens=str(tokens),
        num_threads=1,
    )
    heard = []
    for clip in demo_clips()[:5]:
        audio = read_audio(clip.audio)
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, audio)
        if not streaming:
            recognizer.decode_stream(stream)
            heard.append((list(stream.result.tokens), list(stream.result.timestamps)))
            continue
        stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        heard.append((list(recognizer.tokens(stream)), list(recognizer.timestamps(stream))))
    return heard


def test_sherpa_onnx_hears_the_same_with_both(exported: Exported) -> None:
    streaming = exported.bundle in STREAMING
    tokens = exported.icefalls.encoder.with_name("tokens.txt")
    ours = heard_by_sherpa(exported.files, tokens, streaming=streaming)
    assert ours == heard_by_sherpa(exported.icefalls, tokens, streaming=streaming)
    assert sum(len(found) for found, _ in ours) > 20


@pytest.mark.parametrize("part", ["encoder", "decoder", "joiner"])
def test_the_batch_is_dynamic(exported: Exported, part: str) -> None:
    graph = onnx.load(getattr(exported.files, part)).graph
    for tensor in (*graph.input, *graph.output):
        assert "N" in [dim.dim_param for dim in tensor.type.tensor_type.shape.dim], tensor.name


def test_half_precision_runs_on_a_cpu(exported: Exported) -> None:
    """ONNX Runtime 1.32 ended the process with some of these."""
    encoder = write_fp16(exported.files).encoder
    if exported.layout is None:
        with open_recognizer(encoder) as recognizer:
            assert recognizer.transcribe([read_audio(demo_clips()[0].audio)[:30_000]])[0].text
    else:
        live = open_stream_recognizer(encoder, max_streams=1)
        stream = live.open()
        live.accept(stream, read_audio(demo_clips()[0].audio)[:30_000])
        live.finish(stream)
        live.advance(stream)
        assert live.text(stream)
