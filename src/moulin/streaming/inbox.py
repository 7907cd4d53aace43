"""The audio of all streams, a ring of samples each, from which steppers read windows."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.runs import copy_runs, starts_of
from moulin.audio.waveform import as_floats
from moulin.streaming.window_layout import WindowLayout

_GOES_ON = -1
_ROWS = 32


def ring_samples(layout: WindowLayout) -> int:
    """The length of a stream's ring: a window, and two chunks that arrive while it is read."""
    return (-(-layout.samples // layout.chunk) + 2) * layout.chunk


class Inbox:
    """Rings float32 [slots, ring_samples]: sample i of a stream is at i modulo the ring's length.

    Everything is an array over slots, so that many streams cost few calls. Samples that a ring has no room for wait in
    order of arrival. Different slots may be used from different threads.
    """

    def __init__(self, rings: Floats, layout: WindowLayout) -> None:
        slots, self._ring = rings.shape
        self.rings, self.layout = rings, layout
        self.num_samples = np.zeros(slots, dtype=np.int64)
        """Samples of audio so far, [slots]; the silence after the end does not count."""
        self.num_taken = np.zeros(slots, dtype=np.int32)
        """Windows taken so far, [slots]."""
        self._in_ring = np.zeros(slots, dtype=np.int64)
        self._num_windows = np.full(slots, _GOES_ON, dtype=np.int64)
        self._waiting: dict[int, deque[Floats]] = {}
        self._waits = np.zeros(slots, dtype=np.bool_)  # whether a slot is in `_waiting`

    def open(self, slot: int) -> None:
        """Begin a stream in `slot`. Samples that an earlier stream left in the ring are never read."""
        self.num_samples[slot] = self.num_taken[slot] = self._in_ring[slot] = 0
        self._num_windows[slot] = _GOES_ON
        self._waiting.pop(slot, None)
        self._waits[slot] = False

    def accept(self, slot: int, samples: Floats) -> None:
        """Append audio: float32 [n], n may be 0. It is copied."""
        self.num_samples[slot] += len(samples)
        if slot in self._waiting:
            self._waiting[slot].append(samples.copy())
            return
        count = self._fill(slot, samples)
        if count < len(samples):
            self._waiting[slot] = deque([samples[count:].copy()])
            self._waits[slot] = True

    def accept_many(self, slots: Ints, samples: Floats | NDArray[np.int16]) -> None:
        """Append audio of many streams: float32 or int16 [N, n], a row for each of `slots`, all different."""
        count = samples.shape[1]
        if not count:
            return
        starts = self._in_ring[slots]
        at = starts % self._ring
        fits = (starts + count <= self._room_end(slots)) & ~self._waits[slots]
        straight = fits & (at + count <= self._ring)
        self._put(slots[straight], at[straight], samples if straight.all() else samples[straight])
        # Rows that wrap around the ring's end: as their chunks are equally long, few different positions occur.
        for first in np.unique(at[fits & ~straight]):
            rows = np.flatnonzero(fits & (at == first))
            block, behind = as_floats(samples[rows]), self._ring - first
            self.rings[slots[rows], first:] = block[:, :behind]
            self.rings[slots[rows], : count - behind] = block[:, behind:]
        self._in_ring[slots[fits]] += count
        self.num_samples[slots[fits]] += count
        for row in np.flatnonzero(~fits).tolist():
            self.accept(int(slots[row]), as_floats(samples[row]))

    def accept_runs(self, slots: Ints, samples: Floats | NDArray[np.int16], lengths: Ints) -> None:
        """Append audio of many streams: float32 or int16 [n], `lengths` [N] of it for each of `slots`, which differ."""
        starts, begins = self._in_ring[slots], starts_of(lengths)
        fits = (starts + lengths <= self._room_end(slots)) & ~self._waits[slots]
        rows = np.flatnonzero(fits)
        at, some = starts[rows] % self._ring, lengths[rows]
        straight = np.minimum(some, self._ring - at)  # the others wrap around the ring's end
        copy_runs(
            samples,
            self.rings.reshape(-1),
            np.concatenate([begins[rows], begins[rows] + straight]),
            np.concatenate([slots[rows] * self._ring + at, slots[rows] * self._ring]),
            np.concatenate([straight, some - straight]),
        )
        self._in_ring[slots[rows]] += some
        self.num_samples[slots[rows]] += some
        for row in np.flatnonzero(~fits).tolist():
            self.accept(int(slots[row]), as_floats(samples[begins[row] : begins[row] + lengths[row]]))

    def finish(self, slot: int, tail_samples: int) -> None:
        """End the stream's audio; silence follows as in `WindowLayout.all_windows`. One that has ended stays so."""
        if self._num_windows[slot] == _GOES_ON:
            self._num_windows[slot] = self.layout.all_windows(int(self.num_samples[slot]), tail_samples)

    def discard(self, slot: int) -> None:
        """End the stream without another window, whatever audio is waiting."""
        self._num_windows[slot] = 0

    def finished(self, slots: Ints) -> NDArray[np.bool_]:
        """Whether each of `slots` gets no more audio, bool [N]."""
        finished: NDArray[np.bool_] = self._num_windows[slots] != _GOES_ON
        return finished

    def is_ready(self, slot: int) -> bool:
        """Whether the stream's next window is complete."""
        end = self._num_windows[slot]
        if end == _GOES_ON:
            end = self.layout.whole_windows(int(self.num_samples[slot]))
        return bool(self.num_taken[slot] < end)

    def are_ready(self, slots: Ints) -> NDArray[np.bool_]:
        """`is_ready` of each of `slots`, bool [N]."""
        ends = self._num_windows[slots]
        whole = (self.num_samples[slots] - self.layout.samples + self.layout.overhang) // self.layout.chunk + 1
        ready: NDArray[np.bool_] = self.num_taken[slots] < np.where(ends == _GOES_ON, whole, ends)
        return ready

    def decoded(self, slots: Ints) -> Ints:
        """[N]: the samples of each of `slots` that have been decoded as far as they go: with no more than these, no
        window would be left to take."""
        count, ends = self.num_samples[slots], self._num_windows[slots]
        first_window = self.layout.samples - self.layout.overhang
        enough = first_window + self.num_taken[slots].astype(np.int64) * self.layout.chunk  # for the next window
        still = np.where(ends == _GOES_ON, count, count - 1)
        decoded: Ints = np.where(self.ended(slots), count, np.maximum(np.minimum(still, enough - 1), 0))
        return decoded

    def ended(self, slots: Ints) -> NDArray[np.bool_]:
        """Whether each of `slots` is finished and has no window left, bool [N]."""
        ends = self._num_windows[slots]
        ended: NDArray[np.bool_] = (ends != _GOES_ON) & (self.num_taken[slots] >= ends)
        return ended

    def heard(self, slots: Ints) -> NDArray[np.int32]:
        """[N]: how many samples of the next window of each of `slots` have arrived, counted from the window's first."""
        begin = self.num_taken[slots].astype(np.int64) * self.layout.chunk - self.layout.overhang
        heard: NDArray[np.int32] = np.minimum(self.num_samples[slots] - begin, self.layout.samples).astype(np.int32)
        return heard

    def take(self, slots: Ints) -> None:
        """Move each of `slots` past its next window, which makes room in the rings."""
        self.num_taken[slots] += 1
        for slot in slots[self._waits[slots]].tolist():
            self._refill(slot)

    def _put(self, slots: Ints, at: Ints, samples: Floats | NDArray[np.int16]) -> None:
        """Write rows [N, n] to positions `at` [N] of their rings; none reaches beyond the ring's end."""
        count = min(samples.shape[1], self._ring)
        # A view with a row for every position at which `count` samples may begin: one assignment fills many rings.
        places = sliding_window_view(self.rings.reshape(-1), count, writeable=True)
        first = slots * self._ring + at
        for begin in range(0, len(slots), _ROWS):  # few rows: converted samples are still in the cache when copied
            rows = slice(begin, begin + _ROWS)
            places[first[rows]] = as_floats(samples[rows])

    def _refill(self, slot: int) -> None:
        pieces = self._waiting[slot]
        while pieces:
            count = self._fill(slot, pieces[0])
            if count < len(pieces[0]):
                pieces[0] = pieces[0][count:]
                return
            pieces.popleft()
        del self._waiting[slot]
        self._waits[slot] = False

    def _fill(self, slot: int, samples: Floats) -> int:
        """Append as many of `samples` to the ring as it has room for. Returns how many."""
        start = int(self._in_ring[slot])
        count = min(len(samples), int(self._room_end(slot)) - start)
        at = start % self._ring
        behind = min(count, self._ring - at)
        self.rings[slot, at : at + behind] = samples[:behind]
        self.rings[slot, : count - behind] = samples[behind:count]
        self._in_ring[slot] = start + count
        return count

    def _room_end(self, slots: int | Ints) -> Ints:
        """The first sample that would overwrite one of the next window."""
        taken = np.asarray(self.num_taken[slots], dtype=np.int64)
        end: Ints = np.maximum(taken * self.layout.chunk - self.layout.overhang, 0) + self._ring
        return end
