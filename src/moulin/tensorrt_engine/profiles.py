"""The input shapes that an engine is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moulin.bundle.spec import FRAME_SHIFT_SEC, ExportedSpec
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.errors import OptionsError
from moulin.onnx_rewrites.packed_states import STATES, packed_size

Shape = tuple[int, ...]

# A profile is fastest near its optimum, and one that spans a word to minutes is fast nowhere. Most utterances are
# shorter than 16 s, which the first profile covers; each further one reaches four times as far.
_FIRST_FRAMES = 1600
_STEP = 4


@dataclass(frozen=True, slots=True)
class Range:
    """The smallest, best and largest shape of one input."""

    least: Shape
    best: Shape
    largest: Shape


Profile = Mapping[str, Range]
"""Ranges by the inputs' names."""


def profiles(
    spec: ExportedSpec, *, max_batch: int, min_frames: int, max_seconds: float = MAX_AUDIO_SEC
) -> list[Profile]:
    """Profiles for batches of 1 to `max_batch`, from the facts of the model.

    An offline encoder gets several, which together span `min_frames` to `max_seconds` of audio (by default the
    service's limit), or to the model's limit if that is less. A streaming encoder has one window length, and its states
    packed. Raises OptionsError.
    """
    if max_batch < 1:
        raise OptionsError(f"Expected max-batch of at least 1, got {max_batch}")
    x = spec.encoder.input("x", 0)
    if isinstance(x.shape[0], int) and x.shape[0] != max_batch:
        raise OptionsError(
            f"Expected max-batch of {x.shape[0]}, for which {spec.encoder.file} was exported, got {max_batch}",
            hint="export it with a dynamic batch: `moulin export`, or Icefall's --dynamic-batch",
        )
    if spec.streaming is not None:
        window = (spec.streaming.window_frames, spec.feature_dim)
        size = packed_size(spec.streaming)
        return [{x.name: _batches(window, max_batch), STATES: _batches((size,), max_batch)}]
    longest = _max_frames(spec, max_seconds)
    if longest < min_frames:
        raise OptionsError(
            f"Expected max-seconds of at least {min_frames * FRAME_SHIFT_SEC:g}, the shortest input of this encoder, "
            f"got {longest * FRAME_SHIFT_SEC - TAIL_PADDING_SEC:g}"
        )
    found: list[Profile] = []
    least, largest = min_frames, _FIRST_FRAMES
    while True:
        largest = min(largest, longest)
        best = max(least, min(largest, (least + largest) // 2))
        lengths = [(frames, spec.feature_dim) for frames in (least, best, largest)]
        found.append(
            {
                x.name: Range((1, *lengths[0]), (max_batch, *lengths[1]), (max_batch, *lengths[2])),
                spec.encoder.input("x_lens", 1).name: _batches((), max_batch),
            }
        )
        if largest == longest:
            return found
        least, largest = largest, _STEP * largest


def _batches(rest: Shape, max_batch: int) -> Range:
    """The range of shapes [batch, *rest]; the best batch is the largest."""
    return Range((1, *rest), (max_batch, *rest), (max_batch, *rest))


def _max_frames(spec: ExportedSpec, max_seconds: float) -> int:
    """The most frames of an utterance, with the silence appended to it."""
    if not max_seconds > 0:
        raise OptionsError(f"Expected max-seconds above 0, got {max_seconds:g}")
    wanted = round((max_seconds + TAIL_PADDING_SEC) / FRAME_SHIFT_SEC)
    return wanted if spec.max_frames is None else min(wanted, spec.max_frames)
