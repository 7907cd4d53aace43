"""One stream's windows: an inbox whose rings are full of other streams' samples, and the features of its windows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from moulin.arrays import Floats
from moulin.audio.fbank import FbankOptions
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation
from moulin.streaming.feature_windows import FeatureWindows
from moulin.streaming.inbox import Inbox, ring_samples
from moulin.streaming.turns import Turns
from moulin.streaming.window_layout import WindowLayout
from tests.audio.kaldi_frames import features_of

OPTIONS = FbankOptions()
SLOT = 1


class Windows:
    """The windows of a stream in the middle one of three slots."""

    def __init__(self, window_frames: int, chunk_frames: int, options: FbankOptions = OPTIONS) -> None:
        layout = WindowLayout.of(options, window_frames, chunk_frames)
        self.inbox = Inbox(np.full((3, ring_samples(layout)), 99, np.float32), layout)
        self._windows = FeatureWindows(self.inbox, options.num_mel_bins, partial(features_of, options=options))
        self.inbox.open(SLOT)

    def accept(self, samples: Floats) -> None:
        self.inbox.accept(SLOT, samples)

    def finish(self, tail_samples: int) -> None:
        self.inbox.finish(SLOT, tail_samples)

    def is_ready(self) -> bool:
        return self.inbox.is_ready(SLOT)

    def take(self) -> Floats:
        """The next window."""
        slots = np.array([SLOT])
        continuation = Continuation.beginning(1)
        turns = Turns(
            Continuation(slots, continuation.fresh, continuation.decided, continuation.kept),
            self.inbox.num_taken[slots],
            self.inbox.heard(slots),
            RowOptions.defaults(1),
        )
        windows = self._windows(turns)
        self._windows.keep(slots, windows)
        self.inbox.take(slots)
        window: Floats = windows[0]
        return window

    def taken(self) -> Iterator[Floats]:
        """All complete windows."""
        while self.is_ready():
            yield self.take()
