"""Steps of streams on any `StreamRunner`: audio, features of overlapping windows and searches are on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import ModelSpec
from moulin.decoding.ctc import CtcSearches
from moulin.decoding.found import Found
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import MAX_BEAM
from moulin.decoding.search import Searches
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import StreamEncoder, StreamRunner
from moulin.errors import BundleError
from moulin.streaming.feature_windows import FeatureWindows
from moulin.streaming.inbox import Inbox, ring_samples
from moulin.streaming.turns import Turns
from moulin.streaming.window_layout import WindowLayout

_MakeSearches = Callable[[int], Searches | CtcSearches]


class _Stepper:
    """A `Stepper` on the host, but for the networks and the encoder's states, which are where `runner` has them."""

    def __init__(self, spec: ModelSpec, runner: StreamEncoder, searches: _MakeSearches) -> None:
        """`searches` gets the number of slots. Raises BundleError for an offline model."""
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        fbank = FbankOptions(num_mel_bins=spec.feature_dim)
        layout = WindowLayout.of(fbank, spec.streaming.window_frames, spec.streaming.chunk_frames)
        capacity = runner.limits.capacity
        self.runner = runner
        self.inbox = Inbox(np.zeros((capacity, ring_samples(layout)), dtype=np.float32), layout)
        self._windows = FeatureWindows(self.inbox, spec.feature_dim, runner.fbank)
        self._searches = searches(capacity)

    @property
    def limits(self) -> StepLimits:
        return self.runner.limits

    def step(self, turns: Turns) -> Found:
        slots = turns.continuation.slots
        if len(beginning := slots[turns.numbers == 0]):
            self.runner.reset(beginning)
        windows = self._windows(turns)
        encoder_out = self.runner.encoder(windows, slots)
        self._windows.keep(slots, windows)
        lengths = np.full(len(slots), encoder_out.shape[1])
        return self._searches.advance(turns.continuation, encoder_out, lengths, turns.options)


class HostStepper(_Stepper):
    """A transducer's `Stepper`."""

    runner: StreamRunner

    def __init__(self, spec: ModelSpec, runner: StreamRunner, fusion: Fusion | None = None) -> None:
        """`fusion` is the language model of those who weigh it. Raises BundleError for an offline model."""

        def searches(slots: int) -> Searches:
            return Searches(runner, slots=slots, places=MAX_BEAM, joiner_dim=spec.joiner_dim, fusion=fusion)

        super().__init__(spec, runner, searches)


class CtcStepper(_Stepper):
    """The `Stepper` of a CTC head."""

    def __init__(self, spec: ModelSpec, runner: StreamEncoder) -> None:
        """Raises BundleError for an offline model."""
        super().__init__(spec, runner, lambda slots: CtcSearches(slots=slots, skipped_ids=spec.tokens.skipped_ids))
