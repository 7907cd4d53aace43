"""Skipping of frames that the CTC head takes for blank, before a transducer's search.

The encoder of a transducer with a CTC head gives one channel more than `joiner_dim`, the last: the log-probability of
blank by the CTC head. A frame where it reaches the logarithm of `DecodingOptions.blank_skip` is left out, as Icefall's
`frame_reducer` does; the search then sees fewer frames, and its result has the numbers of the original ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moulin.arrays import Bools, Floats, Ints
from moulin.decoding.found import Found
from moulin.decoding.row_options import RowOptions


def with_blank(encoder_out: Floats, log_probs: Floats) -> Floats:
    """encoder_out [N, T, joiner_dim] with the blank of the CTC head's `log_probs` [N, T, vocab_size] as one channel
    more, float32 [N, T, joiner_dim + 1]."""
    joined: Floats = np.concatenate([encoder_out, log_probs[..., :1]], axis=-1, dtype=np.float32)
    return joined


@dataclass(frozen=True, slots=True)
class SpokenFrames:
    """The frames of N rows that are left for the search."""

    encoder_out: Floats
    """[N, T, joiner_dim]"""
    lengths: Ints
    """[N]"""
    frames: Ints | None
    """[N, T]: the number of each frame before any was skipped; None where none was."""

    def with_their_frames(self, found: Found) -> Found:
        """What a search has `found` in these frames, with the numbers that they had before any was skipped."""
        if self.frames is None or not self.frames.shape[1]:
            return found
        rows = np.arange(len(self.frames))[:, None, None]
        # Behind the tokens of a place there may be anything, also a number that no frame has.
        return replace(found, frames=self.frames[rows, found.frames.clip(0, self.frames.shape[1] - 1)].astype(np.int32))


def skip_blanks(encoder_out: Floats, lengths: Ints, options: RowOptions, joiner_dim: int) -> SpokenFrames:
    """The frames [N, T, joiner_dim or joiner_dim + 1], of which the first `lengths` [N] are valid, that `options` leave
    for the search. Without the channel of blank none is skipped."""
    if encoder_out.shape[-1] == joiner_dim or np.isinf(options.blank_skips).all():
        return SpokenFrames(encoder_out[..., :joiner_dim], lengths, None)
    kept = _kept(encoder_out[..., joiner_dim], lengths, options)
    counts = kept.sum(axis=1)
    # A stable order by "not kept" moves the kept frames to the front.
    frames = np.argsort(~kept, axis=1, kind="stable")[:, : int(counts.max(initial=0))]
    return SpokenFrames(encoder_out[np.arange(len(frames))[:, None], frames, :joiner_dim], counts, frames)


def _kept(blank_log_probs: Floats, lengths: Ints, options: RowOptions) -> Bools:
    # NaN is not skipped: the search finds it, and an encoder that gives NaN is an error.
    blank = blank_log_probs >= options.blank_skips[:, None]
    kept: Bools = ~blank & (np.arange(blank.shape[1]) < lengths[:, None])
    return kept
