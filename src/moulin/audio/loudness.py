"""The loudness of audio, one byte a frame: enough to tell where the sound of a word begins and ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.waveform import as_floats

STEPS_PER_DB = 2
_SILENCE_DB = -100.0

_STRIDE = 8
"""Every eighth sample is taken: the power of 80 samples in 40 ms is within about 1 dB of that of all 640."""


def loudness(samples: Floats | NDArray[np.int16], frame_samples: int) -> NDArray[np.uint8]:
    """The power of each whole frame of `frame_samples` samples, without its mean (a recorder's DC offset).

    `samples` are float32 in [-1, 1] or int16, [..., n]; the result is uint8 [..., n // frame_samples] in half decibels
    above -100 dB of full scale, 0 for anything below.
    """
    num_frames = samples.shape[-1] // frame_samples
    shape = (*samples.shape[:-1], num_frames, frame_samples)
    taken = samples[..., : num_frames * frame_samples].reshape(shape)[..., ::_STRIDE].astype(np.float32)
    if samples.dtype == np.int16:
        taken /= 32768
    with np.errstate(over="ignore", invalid="ignore"):
        taken -= taken[..., :1]  # keeps the next difference exact beside a great offset
        power = np.einsum("...k,...k->...", taken, taken) / taken.shape[-1] - taken.mean(axis=-1) ** 2
    power = np.nan_to_num(power, nan=np.inf)  # samples beyond the root of float32's range are as loud as can be
    decibels = 10 * np.log10(np.maximum(power, 10 ** (_SILENCE_DB / 10)))
    levels: NDArray[np.uint8] = np.clip(np.rint((decibels - _SILENCE_DB) * STEPS_PER_DB), 0, 255).astype(np.uint8)
    return levels


class LoudnessTracks:
    """The loudness of many streams, each in a slot, whose audio comes in pieces of any length.

    Different slots may be used from different threads.
    """

    def __init__(self, slots: int, frame_samples: int) -> None:
        self._frame_samples = frame_samples
        self._levels = [bytearray() for _ in range(slots)]
        self._first_frames = [0] * slots
        self._rests = np.zeros((slots, frame_samples), np.float32)  # the beginning of each stream's next frame
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
        # Streams whose chunks are equally long wait with few different numbers of samples.
        for rest in np.unique(num_rest).tolist():
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
        if rest:
            samples = np.concatenate([self._rests[slots, :rest], as_floats(samples)], axis=1)
        for slot, levels in zip(slots.tolist(), loudness(samples, self._frame_samples), strict=True):
            self._levels[slot] += levels.tobytes()
        over = samples.shape[1] % self._frame_samples
        if over:
            self._rests[slots, :over] = as_floats(samples[:, -over:])
        if over != rest:
            self._num_rest[slots] = over
