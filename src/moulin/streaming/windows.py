"""The feature windows of one stream, whatever pieces its audio comes in."""

from __future__ import annotations

from collections import deque

import numpy as np

from moulin.audio.fbank import FbankOptions, kaldi_options
from moulin.decoding.network import Floats


class WindowedFbank:
    """Audio in, windows of `window_frames` features out, each `chunk_frames` after the one before.

    Features are computed only when a window is taken, so that a client that sends an hour at once costs nobody else
    anything, and no more audio is looked at than the window needs. They equal those of the whole recording
    (`moulin.audio.fbank.Fbank`), bit for bit.
    """

    def __init__(self, options: FbankOptions, window_frames: int, chunk_frames: int) -> None:
        import kaldi_native_fbank as knf

        self._options = options
        self._window_frames, self._chunk_frames = window_frames, chunk_frames
        self._extractor = knf.OnlineFbank(kaldi_options(options))
        self._pieces: deque[Floats] = deque()  # audio that the extractor has not seen
        self._num_samples = 0
        self._num_extracted = 0  # samples that the extractor has seen
        self._num_taken = 0  # windows
        self._last_window: int | None = None  # how many there will be; None while audio may come
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
        """No more audio comes: silence follows, so much that every frame of audio is in the chunk of some window, and
        `tail_samples` of the silence in a chunk or in what a window looks ahead beyond it.

        No audio at all has no windows.
        """
        shift = self._options.frame_shift_samples
        num_frames = (self._num_samples + shift // 2) // shift
        with_tail = (self._num_samples + tail_samples + shift // 2) // shift if self._num_samples else 0
        look_ahead = self._window_frames - self._chunk_frames
        self._last_window = -(-max(num_frames, with_tail - look_ahead) // self._chunk_frames)

    def is_ready(self) -> bool:
        """Whether a whole window is there."""
        if self._last_window is not None:
            return self._num_taken < self._last_window
        return self._num_samples >= self._samples_needed()

    def take(self) -> Floats:
        """The next window, float32 [window_frames, num_mel_bins]; `is_ready` must hold."""
        self._extract(self._samples_needed() - self._num_extracted)
        first = self._num_taken * self._chunk_frames + len(self._overlap)
        last = self._num_taken * self._chunk_frames + self._window_frames
        frames = bytearray().join(map(self._extractor.get_frame, range(first, last)))
        self._extractor.pop(last - first)
        new = np.frombuffer(frames, np.float32).reshape(last - first, self._options.num_mel_bins)
        window = np.concatenate([self._overlap, new])
        self._overlap = window[self._chunk_frames :]
        self._num_taken += 1
        return window

    def discard(self) -> None:
        """The stream has no more windows, whatever audio is waiting. May be called while another thread takes one."""
        self._last_window = 0

    def _samples_needed(self) -> int:
        """How many samples there must be for the next window: frames are centred, so the last overhangs its shift."""
        frames = self._num_taken * self._chunk_frames + self._window_frames
        shift = self._options.frame_shift_samples
        length = round(self._options.sample_rate * self._options.frame_length_ms / 1000)
        return (frames - 1) * shift + (length + shift) // 2

    def _extract(self, count: int) -> None:
        """Show the extractor `count` more samples; behind the audio comes silence."""
        self._num_extracted += count
        while count:
            piece = self._pieces.popleft() if self._pieces else np.zeros(count, dtype=np.float32)
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
            self._extractor.accept_waveform(self._options.sample_rate, piece[:count].data)
            count -= min(count, len(piece))
