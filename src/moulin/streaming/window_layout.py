"""The samples of a stream from which the windows of its encoder are made."""

from __future__ import annotations

from typing import NamedTuple, Self

from moulin.audio.fbank import FbankOptions


class WindowLayout(NamedTuple):
    """Windows of `window_frames` frames, each `chunk_frames` after the one before; frames are counted in samples.

    Frames are centred: the first begins before the first sample, and the last ends behind its shift.
    """

    window_frames: int
    chunk_frames: int
    frame_length: int
    frame_shift: int

    @classmethod
    def of(cls, options: FbankOptions, window_frames: int, chunk_frames: int) -> Self:
        return cls(window_frames, chunk_frames, options.frame_length_samples, options.frame_shift_samples)

    @property
    def samples(self) -> int:
        """Samples in a window."""
        return (self.window_frames - 1) * self.frame_shift + self.frame_length

    @property
    def chunk(self) -> int:
        """Samples from one window to the next."""
        return self.chunk_frames * self.frame_shift

    @property
    def overhang(self) -> int:
        """Samples by which a frame is longer than its shift, on either side."""
        return (self.frame_length - self.frame_shift) // 2

    def whole_windows(self, num_samples: int) -> int:
        """The number of complete windows in a stream of `num_samples` samples that goes on."""
        return max(0, (num_samples + self.overhang - self.samples) // self.chunk + 1)

    def all_windows(self, num_samples: int, tail_samples: int) -> int:
        """The number of windows of a stream that ends after `num_samples` samples, 0 for no audio.

        Enough silence follows that every frame of audio is in the chunk of some window, and `tail_samples` of silence
        in a chunk or in the look-ahead behind it.
        """
        shift = self.frame_shift
        num_frames = (num_samples + shift // 2) // shift
        with_tail = (num_samples + tail_samples + shift // 2) // shift if num_samples else 0
        look_ahead = self.window_frames - self.chunk_frames
        return -(-max(num_frames, with_tail - look_ahead) // self.chunk_frames)
