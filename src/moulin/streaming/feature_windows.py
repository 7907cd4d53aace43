"""The feature windows of streams, from the audio in their rings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.streaming.inbox import Inbox
from moulin.streaming.turns import Turns


class FeatureWindows:
    """Computes windows; frames that two windows share once. Different slots may be used from different threads.

    Frames are those of the whole recording (`moulin.audio.fbank.Fbank`) with silence behind it.
    """

    def __init__(self, inbox: Inbox, num_mel_bins: int, fbank: Callable[[Floats], Floats]) -> None:
        """`fbank` makes features [M, num_mel_bins] of frames [M, frame_length], both float32."""
        self._inbox, self._layout, self._fbank = inbox, inbox.layout, fbank
        overlap = self._layout.window_frames - self._layout.chunk_frames
        self._overlaps = np.zeros((len(inbox.rings), overlap, num_mel_bins), dtype=np.float32)

    def __call__(self, turns: Turns) -> Floats:
        """The windows of N streams, float32 [N, window_frames, num_mel_bins]. Changes no state: see `keep`."""
        layout, slots = self._layout, turns.continuation.slots
        begins = turns.numbers.astype(np.int64) * layout.chunk - layout.overhang
        known = layout.window_frames - layout.chunk_frames
        # The first window of a stream is computed as a whole; later ones begin with frames of the one before.
        each = (np.flatnonzero(turns.numbers == 0), 0), (np.flatnonzero(turns.numbers), known)
        parts = [(rows, shared) for rows, shared in each if len(rows)]
        frames = [self._frames(slots[rows], begins[rows], turns.heard[rows], shared) for rows, shared in parts]
        features = self._fbank(np.concatenate([some.reshape(-1, layout.frame_length) for some in frames]))
        windows = np.empty((len(slots), layout.window_frames, features.shape[1]), dtype=np.float32)
        for rows, shared in parts:
            new = len(rows) * (layout.window_frames - shared)
            windows[rows, :shared] = self._overlaps[slots[rows], :shared]
            windows[rows, shared:] = features[:new].reshape(len(rows), -1, features.shape[1])
            features = features[new:]
        return windows

    def keep(self, slots: Ints, windows: Floats) -> None:
        """Store the frames that the next windows of `slots` [N] share with `windows`, once these have been used."""
        self._overlaps[slots] = windows[:, self._layout.chunk_frames :]

    def _frames(self, slots: Ints, begins: Ints, heard: Ints | NDArray[np.int32], skipped: int) -> Floats:
        """The frames of windows that begin at samples `begins` [N], without the first `skipped` ones: float32
        [N, frames, frame_length]."""
        layout, rings = self._layout, self._inbox.rings
        samples = np.zeros((len(slots), layout.samples - skipped * layout.frame_shift), dtype=np.float32)
        ring = rings.shape[1]
        for row, (slot, begin, count) in enumerate(zip(slots.tolist(), begins.tolist(), heard.tolist(), strict=True)):
            start, end = max(begin + skipped * layout.frame_shift, 0), begin + count
            if start < end:
                into = samples[row, start - begin - skipped * layout.frame_shift :]
                at = start % ring
                straight = min(end - start, ring - at)
                into[:straight] = rings[slot, at : at + straight]
                into[straight : end - start] = rings[slot, : end - start - straight]
            if begin < 0:  # Kaldi mirrors the beginning of a recording
                samples[row, :-begin] = samples[row, -begin : -2 * begin][::-1]
        return sliding_window_view(samples, layout.frame_length, axis=1)[:, :: layout.frame_shift]
