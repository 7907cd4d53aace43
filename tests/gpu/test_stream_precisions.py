"""Streams of a checkpoint on a GPU in each precision: each runs in the requested one, with the same text."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import pytest
import torch

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.files import Precision
from moulin.engine.gpu.stepper import GpuStepper
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions

DIGITS = Path(__file__).parents[1] / "data" / "digits-en"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: PyTorch sees none")


@pytest.fixture(scope="module")
def clips() -> list[Floats]:
    return [read_audio(clip.audio) for clip in demo_clips()[:6]]


@pytest.fixture(scope="module")
def wanted(clips: list[Floats]) -> list[str]:
    """The texts in fp32 on the CPU."""
    with open_stream_recognizer(DIGITS, max_streams=len(clips)) as recognizer:
        return texts(recognizer, clips)


def texts(recognizer: StreamRecognizer, clips: Sequence[Floats]) -> list[str]:
    streams = [recognizer.open(StreamOptions(endpoint=False)) for _ in clips]
    for stream, clip in zip(streams, clips, strict=True):
        recognizer.accept(stream, clip)
        recognizer.finish(stream)
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.step(ready)
    said = [recognizer.text(stream) for stream in streams]
    for stream in streams:
        recognizer.close(stream)
    return said


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", None])
def test_hears_the_same(precision: Precision | None, clips: list[Floats], wanted: list[str]) -> None:
    with open_stream_recognizer(
        DIGITS, EngineChoice(device="cuda", precision=precision), max_streams=len(clips)
    ) as recognizer:
        assert recognizer.spec.precision == (precision or "fp16")
        if precision == "fp32":
            assert isinstance(recognizer.stepper, HostStepper)
        else:
            assert isinstance(recognizer.stepper, GpuStepper)
            dtype = torch.bfloat16 if precision == "bf16" else torch.float16
            assert recognizer.stepper.pipeline._encoder.dtype == dtype
        said = texts(recognizer, clips)
    if precision == "fp32":
        assert said == wanted
    heard, reference = " ".join(said).split(), " ".join(wanted).split()
    assert len(reference) > 40
    assert SequenceMatcher(None, heard, reference, autojunk=False).ratio() > 0.95
