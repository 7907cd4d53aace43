"""A stepper without a model: what the way into the service costs by itself.

Each second step of a stream emits a token, which is about as many as English speech has, so that texts and updates
grow as usual; which token depends on the step alone.
"""

from __future__ import annotations

import numpy as np

from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import ModelSpec
from moulin.decoding.found import Found
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.streaming.inbox import Inbox, ring_samples
from moulin.streaming.turns import Turns
from moulin.streaming.window_layout import WindowLayout

MAX_BATCH = 1024


class IdleStepper:
    """A `Stepper` that takes no time."""

    def __init__(self, spec: ModelSpec, capacity: int) -> None:
        """`spec` is of a streaming model, of which sizes and tokens are used."""
        assert spec.streaming is not None
        layout = WindowLayout.of(
            FbankOptions(num_mel_bins=spec.feature_dim), spec.streaming.window_frames, spec.streaming.chunk_frames
        )
        self.limits = StepLimits(capacity, MAX_BATCH)
        self.inbox = Inbox(np.zeros((capacity, ring_samples(layout)), np.float32), layout)
        self._frames = spec.streaming.chunk_encoder_frames
        skipped = set(spec.tokens.skipped_ids)
        self._tokens = np.array([token for token in range(spec.vocab_size) if token not in skipped], np.int32)

    def step(self, turns: Turns) -> Found:
        found = Found.nothing(len(turns.numbers), 1, self._frames)
        speaks = turns.numbers % 2 == 1
        found.scores[:, 0] = 0.0
        found.counts[:, 0] = speaks
        found.tokens[:, 0, 0] = self._tokens[turns.numbers * 7 % len(self._tokens)]
        return found


def idle_recognizer(spec: ModelSpec, capacity: int) -> StreamRecognizer:
    """A recognizer over an `IdleStepper`."""
    return StreamRecognizer(spec, IdleStepper(spec, capacity))
