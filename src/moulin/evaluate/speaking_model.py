"""A model of a published size with random weights that emits as many tokens as English speech has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.waveform import SAMPLE_RATE
from moulin.decoding.options import DecodingOptions
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.published_sizes import write_checkpoint, write_speaking_checkpoint
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions

TOKENS_A_FRAME = 0.11
"""A token every nine frames of 40 ms."""

_FRAMES_A_SEC = 25
_CLIPS, _SAMPLE_SEC = 7, 3  # enough for the rate within a few per cent, and seconds on a CPU
_HALVINGS = 10


def write_speaking_model(size: str, folder: Path, *, streaming: bool, device: str = "cpu") -> None:
    """A checkpoint of `size` with its tokens.txt in `folder`, with blank favoured as far as TOKENS_A_FRAME takes.

    How far that is, the plain modules tell on `device` from the demo recordings. Raises OptionsError.
    """
    transducer = write_speaking_checkpoint(size, folder)
    waveforms = [read_audio(clip.audio)[: _SAMPLE_SEC * SAMPLE_RATE] for clip in demo_clips()[:_CLIPS]]
    frames = sum(map(len, waveforms)) / SAMPLE_RATE * _FRAMES_A_SEC
    with (_streams if streaming else _recordings)(folder, device, waveforms) as hear:
        penalty = blank_penalty(lambda tried: sum(map(_num_tokens, hear(tried))) / frames)
    with torch.no_grad():
        transducer.joiner.output_linear.bias[0] -= penalty
    write_checkpoint(transducer, folder)


def blank_penalty(tokens_a_frame: Callable[[float], float]) -> float:
    """The penalty of the blank's logit that gives TOKENS_A_FRAME, or a little fewer; a larger one gives more tokens."""
    low, high = -20.0, 20.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if tokens_a_frame(middle) > TOKENS_A_FRAME else (middle, high)
    return low


def _num_tokens(text: str) -> int:
    """Every token of a speaking checkpoint is spelt with two letters."""
    return len(text.replace(" ", "")) // 2


Hear = Callable[[float], list[str]]
"""The texts of all waveforms, with a blank penalty."""


@contextmanager
def _recordings(folder: Path, device: str, waveforms: list[Floats]) -> Iterator[Hear]:
    with open_recognizer(folder, EngineChoice(device=device, precision="fp32")) as recognizer:

        def hear(penalty: float) -> list[str]:
            options = [DecodingOptions(blank_penalty=penalty)] * len(waveforms)
            return [transcript.text for transcript in recognizer.transcribe(waveforms, options)]

        yield hear


@contextmanager
def _streams(folder: Path, device: str, waveforms: list[Floats]) -> Iterator[Hear]:
    engine = EngineChoice(device=device, precision="fp32")
    with open_stream_recognizer(folder, engine, max_streams=len(waveforms)) as recognizer:

        def hear(penalty: float) -> list[str]:
            options = StreamOptions(DecodingOptions(blank_penalty=penalty), endpoint=False)
            streams = [recognizer.open(options) for _ in waveforms]
            for stream, waveform in zip(streams, waveforms, strict=True):
                recognizer.accept(stream, waveform)
            while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
                recognizer.step(ready)
            texts = [recognizer.text(stream) for stream in streams]
            for stream in streams:
                recognizer.close(stream)
            return texts

        yield hear
