"""The seam between steps on the host and whatever runs the networks and keeps the encoders' states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from moulin.arrays import Floats, Ints
from moulin.decoding.network import PredictionNetwork
from moulin.engine.stepper import StepLimits
from moulin.errors import OptionsError


class StreamEncoder(Protocol):
    """A loaded streaming encoder with states for `limits.capacity` streams, each in a slot.

    The states never leave the device that they live on. Calls for different slots may be made from several threads at
    once.
    """

    @property
    def limits(self) -> StepLimits: ...

    def fbank(self, frames: Floats) -> Floats:
        """Features of frames float32 [N, L], samples in [-1, 1]: float32 [N, feature_dim]."""

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        """Windows float32 [N, window_frames, feature_dim] of the streams in `slots` int64 [N] to encoder_out float32
        [N, T', joiner_dim], all of whose frames are valid. Takes their states one chunk further. That of a transducer
        with a CTC head gives one channel more (`moulin.decoding.blank_skip`).

        Raises EngineError, and the states are then as before.
        """

    def reset(self, slots: Ints) -> None:
        """Put the states of `slots` int64 [N] back to the beginning of a stream."""


class StreamRunner(StreamEncoder, PredictionNetwork, Protocol):
    """A loaded streaming transducer. That of a CTC head is a `StreamEncoder`, which gives log-probabilities
    [N, T', vocab_size]."""


def check_counts(counts: Mapping[str, int | None]) -> None:
    """Raises OptionsError for a count that is given and below 1; `counts` has them by the names for messages."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise OptionsError(f"Expected at least 1 of {name}, got {value}")
