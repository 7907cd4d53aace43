"""Streams through a checkpoint's modules give the words of its ONNX export."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.decoding.options import DecodingOptions, Method
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import StreamsFull
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES, STREAMING
from tests.engine.torch.checkpoints import METHODS, audios, checkpoint


def heard(recognizer: StreamRecognizer, audio: Floats) -> str:
    stream = recognizer.open()
    for first in range(0, len(audio), 3000):
        recognizer.accept(stream, audio[first : first + 3000])
        recognizer.advance(stream)
    recognizer.finish(stream)
    recognizer.advance(stream)
    text = recognizer.text(stream)
    recognizer.close(stream)
    return text


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bundle", [name for name in STREAMING if name != "zipformer2-streaming"])
def test_streams_say_what_icefalls_export_says(bundle: str, method: Method) -> None:
    """The Zipformer2's bundle has another left context than the recipe's default, which a checkpoint gets."""
    options = StreamOptions(DecodingOptions(method), endpoint=False)
    ours = open_stream_recognizer(checkpoint(bundle), options=options, max_streams=4)
    onnx = open_stream_recognizer(BUNDLES / bundle, options=options, max_streams=4)
    said = [heard(ours, audio) for audio in audios()]
    assert said == [heard(onnx, audio) for audio in audios()]
    assert any(said)


@pytest.mark.parametrize("bundle", STREAMING)
def test_streams_together_say_what_they_say_alone(bundle: str) -> None:
    recognizer = open_stream_recognizer(checkpoint(bundle), max_streams=3)
    alone = [heard(recognizer, audio) for audio in audios()[1:]]
    streams = [recognizer.open() for _ in range(3)]
    with pytest.raises(StreamsFull):
        recognizer.open()
    for stream, audio in zip(streams, audios()[1:], strict=True):
        recognizer.accept(stream, audio)
        recognizer.finish(stream)
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.step(ready)
    assert [recognizer.text(stream) for stream in streams] == alone


def test_features_are_those_of_the_numpy_reference() -> None:
    recognizer = open_stream_recognizer(checkpoint("lstm-streaming"), max_streams=1)
    onnx = open_stream_recognizer(BUNDLES / "lstm-streaming", max_streams=1)
    frames = 0.1 * np.random.default_rng(0).standard_normal((50, 400), dtype=np.float32)
    assert isinstance(recognizer.stepper, HostStepper)
    assert isinstance(onnx.stepper, HostStepper)
    np.testing.assert_allclose(recognizer.stepper.runner.fbank(frames), onnx.stepper.runner.fbank(frames), atol=2e-4)
