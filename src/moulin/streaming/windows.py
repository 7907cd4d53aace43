"""The feature windows of one stream, whatever pieces its audio comes in."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from moulin.arrays import Floats
from moulin.audio.fbank import FbankOptions
from moulin.streaming.window_layout import WindowLayout


class FeatureWindows:
    """Audio in, windows of `window_frames` features out, each `chunk_frames` after the one before.

    What is between them, features from frames, is computed elsewhere, for many streams at once: `take_frames` gives
    the frames that the next window has and the last one had not, and `complete` makes the window from their features.

    Frames are cut only when they are taken, so that a client that sends an hour at once costs nobody else anything,
    and no more audio is looked at than the window needs. They are those of the whole recording
    (`moulin.audio.fbank.Fbank`) with silence behind it.
    """

    def __init__(self, options: FbankOptions, window_frames: int, chunk_frames: int) -> None:
        self._layout = WindowLayout.of(options, window_frames, chunk_frames)
        self._pieces: deque[Floats] = deque()  # audio that no frame has been cut from
        self._num_samples = 0
        self._num_taken = 0  # windows
        self._last_window: int | None = None  # how many there will be; None while audio may come
        self._seen: Floats | None = None  # the last samples of the last frame, which the next frame begins with
        self._overlap = np.zeros((0, options.num_mel_bins), dtype=np.float32)

    @property
    def num_samples(self) -> int:
        """Of audio so far, without the silence behind it."""
        return self._num_samples

    @property
    def finished(self) -> bool:
        return self._last_window is not None

    def accept(self, samples: Floats) -> None:
        """More audio: float32 [n], n may be 0. The array is kept, not copied."""
        if len(samples):
            self._pieces.append(samples)
            self._num_samples += len(samples)

    def finish(self, tail_samples: int) -> None:
        """No more audio comes: silence follows; see `WindowLayout.all_windows`."""
        self._last_window = self._layout.all_windows(self._num_samples, tail_samples)

    def is_ready(self) -> bool:
        """Whether a whole window is there."""
        if self._last_window is not None:
            return self._num_taken < self._last_window
        return self._num_taken < self._layout.whole_windows(self._num_samples)

    def take_frames(self) -> Floats:
        """The next window's new frames, float32 [n, frame_length_samples]; `is_ready` must hold."""
        layout = self._layout
        if self._seen is None:
            count = layout.window_frames
            audio = self._pull(layout.samples - layout.overhang)
            # Kaldi sees the beginning of a recording mirrored.
            audio = np.concatenate([audio[: layout.overhang][::-1], audio])
        else:
            count = layout.chunk_frames
            audio = np.concatenate([self._seen, self._pull(layout.chunk)])
        self._seen = audio[count * layout.frame_shift :].copy()
        self._num_taken += 1
        return sliding_window_view(audio, layout.frame_length)[:: layout.frame_shift]

    def complete(self, features: Floats) -> Floats:
        """The window, float32 [window_frames, num_mel_bins], whose new frames have these `features`."""
        window: Floats = np.concatenate([self._overlap, features])
        self._overlap = window[self._layout.chunk_frames :]
        return window

    def discard(self) -> None:
        """The stream has no more windows, whatever audio is waiting. May be called while another thread takes one."""
        self._last_window = 0

    def _pull(self, count: int) -> Floats:
        """The next `count` samples; behind the audio comes silence."""
        parts: list[Floats] = []
        while count:
            piece = self._pieces.popleft() if self._pieces else np.zeros(count, dtype=np.float32)
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
            parts.append(piece[:count])
            count -= len(parts[-1])
        return np.concatenate(parts)
