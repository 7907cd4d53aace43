"""The loudness of audio, one byte a frame: enough to tell where the sound of a word begins and ends."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.runs import places_in, starts_of
from moulin.audio.waveform import as_floats

STEPS_PER_DB = 2
_SILENCE_DB = -100.0
_SILENCE_POWER = np.float32(10 ** (_SILENCE_DB / 10))

_MAX_FRAMES = 1024
"""Levels of a stream's open segment that the array holds: 40 s of frames of 40 ms."""

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
        # The latest levels; earlier ones of long segments are in a dictionary.
        self._levels = np.zeros((slots, _MAX_FRAMES), np.uint8)
        self._counts = np.zeros(slots, np.int64)
        self._earlier: dict[int, bytearray] = {}
        self._first_frames = np.zeros(slots, np.int64)
        # Every `_STRIDE`th sample of the beginning of each stream's next frame, and how many samples there are in all.
        self._rests = np.zeros((slots, frame_samples // _STRIDE), np.float32)
        self._num_rest = np.zeros(slots, np.int64)

    def open(self, slot: int) -> None:
        """Begin a stream in `slot`."""
        self._earlier.pop(slot, None)
        self._counts[slot] = self._first_frames[slot] = self._num_rest[slot] = 0

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

    def accept_runs(self, slots: Ints, samples: Floats | NDArray[np.int16], lengths: Ints) -> None:
        """Append audio of many streams: float32 or int16 [n], `lengths` [N] of it for each of `slots`, which differ."""
        size, rest = self._frame_samples // _STRIDE, self._num_rest[slots]
        there, after = _num_taken(rest), rest + lengths
        counts = _num_taken(after)  # taken samples of each stream since the beginning of its frame
        begins = starts_of(counts)
        taken = np.empty(int(counts.sum()), np.float32)
        runs, places = places_in(there)
        taken[begins[runs] + places] = self._rests[slots[runs], places]
        runs, places = places_in(counts - there)
        from_run = starts_of(lengths) + -rest % _STRIDE
        taken[begins[runs] + there[runs] + places] = as_floats(samples[from_run[runs] + places * _STRIDE])
        whole = after // self._frame_samples
        runs, places = places_in(whole)
        frames = taken[(begins[runs] + places * size)[:, None] + np.arange(size)]
        self._add(slots, whole, _levels(frames.reshape(-1), self._frame_samples))
        runs, places = places_in(counts - whole * size)
        self._rests[slots[runs], places] = taken[begins[runs] + whole[runs] * size + places]
        self._num_rest[slots] = after - whole * self._frame_samples

    def first_frame(self, slot: int) -> int:
        """The frame of the first level that is kept."""
        return int(self._first_frames[slot])

    def until(self, slot: int, frame: int | None) -> bytes:
        """The levels from `first_frame` to before `frame`, by default all."""
        levels = self._earlier.get(slot, b"") + self._levels[slot, : self._counts[slot]].tobytes()
        return bytes(levels if frame is None else levels[: max(0, frame - self.first_frame(slot))])

    def forget_before(self, slot: int, frame: int) -> None:
        """Drop the levels before `frame`."""
        earlier, kept = self._earlier.get(slot, bytearray()), int(self._counts[slot])
        count = min(max(0, frame - self.first_frame(slot)), len(earlier) + kept)
        from_array = max(0, count - len(earlier))
        del earlier[:count]
        self._levels[slot, : kept - from_array] = self._levels[slot, from_array:kept].copy()
        self._counts[slot] = kept - from_array
        self._first_frames[slot] += count

    def _append(self, slots: Ints, samples: Floats | NDArray[np.int16], rest: int) -> None:
        """Append `samples` [N, n] to streams of which each has `rest` samples of a frame already."""
        whole, over = divmod(rest + samples.shape[1], self._frame_samples)
        taken = as_floats(samples[:, -rest % _STRIDE :: _STRIDE])
        if rest:
            taken = np.concatenate([self._rests[slots, : _num_taken(rest)], taken], axis=1)
        at = whole * _num_taken(self._frame_samples)
        if whole:
            levels = _levels(taken[:, :at], self._frame_samples)
            self._add(slots, np.full(len(slots), whole), levels.reshape(-1))
        if over:
            self._rests[slots, : _num_taken(over)] = taken[:, at:]
        if over != rest:
            self._num_rest[slots] = over

    def _add(self, slots: Ints, counts: Ints, levels: NDArray[np.uint8]) -> None:
        """Append `counts` [N] of `levels` to each of `slots`."""
        for row in np.flatnonzero(self._counts[slots] + counts > _MAX_FRAMES).tolist():
            slot = int(slots[row])
            self._earlier.setdefault(slot, bytearray()).extend(self._levels[slot, : self._counts[slot]].tobytes())
            self._counts[slot] = 0
            if (count := int(counts[row])) > _MAX_FRAMES:  # more at once than the array holds
                begin = int(counts[:row].sum())
                self._earlier[slot].extend(levels[begin : begin + count].tobytes())
                kept = np.ones(len(levels), np.bool_)
                kept[begin : begin + count] = False
                self._add(np.delete(slots, row), np.delete(counts, row), levels[kept])
                return
        runs, places = places_in(counts)
        self._levels[slots[runs], self._counts[slots[runs]] + places] = levels
        self._counts[slots] += counts


@overload
def _num_taken(samples: int) -> int: ...
@overload
def _num_taken(samples: Ints) -> Ints: ...
def _num_taken(samples: int | Ints) -> int | Ints:
    """How many of so many samples from the beginning of a frame are taken."""
    return -(-samples // _STRIDE)
