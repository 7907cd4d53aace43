"""The peaks of a recording's samples, for pictures of waveforms."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.long_audio.recording_pieces import Blocks

PEAKS_A_SEC = 50
_PEAK_SAMPLES = SAMPLE_RATE // PEAKS_A_SEC


class PeaksOf:
    """A recording whose peaks are collected while its blocks pass."""

    def __init__(self, recording: Blocks) -> None:
        self._recording = recording
        self._found = bytearray()
        self._taken = 0  # peaks that `taken` has returned
        self._samples = 0  # of the open peak
        self._open = 0.0

    def __iter__(self) -> Iterator[Floats | Skip]:
        return self

    def __next__(self) -> Floats | Skip:
        block = next(self._recording)
        if isinstance(block, Skip):
            self._skip(block.samples)
        else:
            self._add(np.abs(block))
        return block

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._recording.warnings

    def taken(self) -> dict[str, Any] | None:
        """The peaks since the last call, JSON-ready; None where there are none.

        `first` is the number of the first one, counted from the recording's beginning, `a_second` how many a second
        has, `values` base64 of a byte for each: 255 times the square root, so that quiet speech can be told from
        silence.
        """
        if not self._found:
            return None
        values = base64.b64encode(self._found).decode()
        found = {"first": self._taken, "a_second": PEAKS_A_SEC, "values": values}
        self._taken += len(self._found)
        self._found.clear()
        return found

    def _add(self, levels: Floats) -> None:
        """`levels` float32 [n], absolute samples."""
        head = levels[: _PEAK_SAMPLES - self._samples]
        self._grow(head)
        whole = (len(levels) - len(head)) // _PEAK_SAMPLES
        rows = levels[len(head) : len(head) + whole * _PEAK_SAMPLES].reshape(whole, _PEAK_SAMPLES)
        self._found += _companded(rows.max(axis=1, initial=0.0))
        self._grow(levels[len(head) + whole * _PEAK_SAMPLES :])

    def _grow(self, levels: Floats) -> None:
        """Add to the open peak what does not fill more than it."""
        if len(levels):
            self._open = max(self._open, float(levels.max()))
            self._samples += len(levels)
        if self._samples == _PEAK_SAMPLES:
            self._close()

    def _skip(self, samples: int) -> None:
        closed, self._samples = divmod(self._samples + samples, _PEAK_SAMPLES)
        if closed:
            rest = self._samples
            self._close()
            self._found += bytes(closed - 1)
            self._samples = rest

    def _close(self) -> None:
        self._found += _companded(np.array([self._open], np.float32))
        self._open, self._samples = 0.0, 0


def _companded(peaks: Floats) -> bytes:
    """A byte for each of `peaks`, float32 [n]."""
    values: NDArray[np.uint8] = np.round(255 * np.sqrt(np.minimum(np.nan_to_num(peaks), 1.0))).astype(np.uint8)
    return values.tobytes()
