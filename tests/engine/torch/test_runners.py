"""Checkpoints run as they are say what their ONNX exports say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions, Method
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.errors import BundleError, EngineError, OptionsError, StreamsFull
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES, OFFLINE, STREAMING

METHODS: tuple[Method, ...] = ("greedy", "modified_beam_search")


def checkpoint(bundle: str) -> Path:
    return BUNDLES / bundle / "epoch-1.pt"


def audios() -> list[Floats]:
    return [
        0.1 * np.random.default_rng(length).standard_normal(length, dtype=np.float32)
        for length in (200, 9_000, 33_333, 64_000)
    ]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bundle", OFFLINE)
def test_whole_utterances_say_what_icefalls_export_says(bundle: str, method: Method) -> None:
    options = DecodingOptions(method)
    with (
        open_recognizer(checkpoint(bundle), options=options) as ours,
        open_recognizer(BUNDLES / bundle, options=options) as onnx,
    ):
        assert isinstance(ours.spec, CheckpointSpec)
        assert isinstance(onnx.spec, OnnxModelSpec)
        said = [transcript.text for transcript in ours.transcribe(audios())]
        assert said == [transcript.text for transcript in onnx.transcribe(audios())]
        assert any(said)


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


def test_what_a_checkpoint_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot stream"):
        open_stream_recognizer(checkpoint("zipformer2-offline"))
    with pytest.raises(OptionsError, match="Expected a precision of fp32"):
        open_recognizer(checkpoint("conformer-offline"), EngineChoice(precision="int8"))
    (tmp_path / "epoch-1.pt").write_bytes(checkpoint("lstm-streaming").read_bytes())
    with pytest.raises(BundleError, match=r"has no tokens\.txt"):
        load_model(tmp_path)
    with pytest.raises(OptionsError, match="at least 1 of streams"):
        open_stream_recognizer(checkpoint("lstm-streaming"), max_streams=0)
    with pytest.raises(OptionsError, match="at least 1 thread"):
        open_recognizer(checkpoint("conformer-offline"), EngineChoice(threads=0))


def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(EngineError, match=r"Expected a GPU cuda:7, PyTorch .* finds \d GPUs"):
        open_recognizer(checkpoint("conformer-offline"), EngineChoice(device="cuda:7"))


def test_what_pytorch_refuses_is_an_engine_error() -> None:
    recognizer = open_stream_recognizer(checkpoint("lstm-streaming"), max_streams=1)
    assert isinstance(recognizer.stepper, HostStepper)
    assert isinstance(recognizer.stepper.runner, TorchStreamRunner)
    with pytest.raises(EngineError, match="PyTorch failed on cpu"):
        recognizer.stepper.runner.encoder(np.zeros((1, 9, 7), np.float32), np.array([0]))
