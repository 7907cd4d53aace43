"""The loudness of audio, one byte a frame: enough to tell where the sound of a word begins and ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.waveform import as_floats

STEPS_PER_DB = 2
_SILENCE_DB = -100.0
_SILENCE_POWER = np.float32(10 ** (_SILENCE_DB / 10))

_STRIDE = 16
"""Every sixteenth sample is taken: the power of 40 samples in 40 ms is within some 1.5 dB of that of all 640."""


def loudness(samples: Floats | NDArray[np.int16], frame_samples: int) -> NDArray[np.uint8]:
    """The power of each whole frame of `frame_samples` samples, a multiple of 16, without its mean (a recorder's DC
    offset).

    `samples` are float32 in [-1, 1] or int16, [..., n]; the result is uint8 [..., n // frame_samples] in half decibels
    above -100 dB of full scale, 0 for anything below.
    """
    whole = samples.shape[-1] // frame_samples * frame_samples
    return _levels(as_floats(samples[..., :whole:_STRIDE]), frame_samples)


def _levels(taken: Floats, frame_samples: int) -> NDArray[np.uint8]:
    """The levels of whole frames from every `_STRIDE`th sample, [..., n]."""
    count = frame_samples // _STRIDE
    frames = taken.reshape(*taken.shape[:-1], -1, count)
    with np.errstate(over="ignore", invalid="ignore"):
        frames = frames - frames[..., :1]  # keeps the next difference exact beside a great offset
        mean = np.einsum("...k->...", frames) / np.float32(count)
        power = np.einsum("...k,...k->...", frames, frames) / np.float32(count) - mean * mean
    power[np.isnan(power)] = np.inf  # samples beyond the root of float32's range are as loud as can be
    steps = np.log10(np.maximum(power, _SILENCE_POWER)) * (10 * STEPS_PER_DB) - _SILENCE_DB * STEPS_PER_DB
    levels: NDArray[np.uint8] = np.minimum(np.rint(steps), 255).astype(np.uint8)
    return levels


class LoudnessTracks:
    """The loudness of many streams. Each has a slot, and its audio comes in pieces of any length.

    Different slots may be used from different threads.
    """

    def __init__(self, slots: int, frame_samples: int) -> None:
        self._frame_samples = frame_samples
        self._levels = [bytearray() for _ in range(slots)]
        self._first_frames = [0] * slots
        # Every `_STRIDE`th sample of the beginning of each stream's next frame, and how many samples there are in all.
        self._rests = np.zeros((slots, frame_samples // _STRIDE), np.float32)
        self._num_rest = np.zeros(slots, np.int64)

    def open(self, slot: int) -> None:
        """Begin a stream in `slot`."""
        self._levels[slot] = bytearray()
        self._first_frames[slot] = self._num_rest[slot] = 0

    def accept(self, slot: int, samples: Floats) -> None:
        """Append audio: float32 [n], n may be 0."""
        self.accept_many(np.array([slot]), samples[None])

    def accept_many(self, slots: Ints, samples: Floats | NDArray[np.int16]) -> None:
        """Append audio of many streams: float32 or int16 [N, n], a row for each of `slots`, all different."""
        num_rest = self._num_rest[slots]
        # Streams with equal chunks have few different rests, mostly the same one.
        in_step = len(slots) and (num_rest == num_rest[0]).all()
        for rest in num_rest[:1].tolist() if in_step else np.unique(num_rest).tolist():
            rows = np.flatnonzero(num_rest == rest)
            self._append(slots[rows], samples if len(rows) == len(slots) else samples[rows], rest)

    def first_frame(self, slot: int) -> int:
        """The frame of the first level that is kept."""
        return self._first_frames[slot]

    def until(self, slot: int, frame: int | None) -> bytes:
        """The levels from `first_frame` to before `frame`, by default all."""
        levels = self._levels[slot]
        return bytes(levels if frame is None else levels[: max(0, frame - self._first_frames[slot])])

    def forget_before(self, slot: int, frame: int) -> None:
        """Drop the levels before `frame`."""
        count = min(max(0, frame - self._first_frames[slot]), len(self._levels[slot]))
        del self._levels[slot][:count]
        self._first_frames[slot] += count

    def _append(self, slots: Ints, samples: Floats | NDArray[np.int16], rest: int) -> None:
        """Append `samples` [N, n] to streams of which each has `rest` samples of a frame already."""
        whole, over = divmod(rest + samples.shape[1], self._frame_samples)
        taken = as_floats(samples[:, -rest % _STRIDE :: _STRIDE])
        if rest:
            taken = np.concatenate([self._rests[slots, : _num_taken(rest)], taken], axis=1)
        at = whole * _num_taken(self._frame_samples)
        if whole:
            self._add(slots, _levels(taken[:, :at], self._frame_samples))
        if over:
            self._rests[slots, : _num_taken(over)] = taken[:, at:]
        if over != rest:
            self._num_rest[slots] = over

    def _add(self, slots: Ints, levels: NDArray[np.uint8]) -> None:
        each = levels.tobytes()
        frames = levels.shape[1]
        for number, slot in enumerate(slots.tolist()):
            self._levels[slot] += each[number * frames : (number + 1) * frames]


def _num_taken(samples: int) -> int:
    """How many of so many samples from the beginning of a frame are taken."""
    return -(-samples // _STRIDE)
