"""The seam between streaming recognition and whatever runs the networks and keeps the encoders' states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from moulin.decoding.network import Floats, Ints, PredictionNetwork
from moulin.errors import OptionsError


class StreamRunner(PredictionNetwork, Protocol):
    """A loaded streaming transducer with encoder states for `capacity` streams, each in a slot.

    The states never leave the device that they live on. Calls for different slots may be made from several threads at
    once.
    """

    @property
    def capacity(self) -> int:
        """How many streams may be open."""

    @property
    def threads(self) -> int:
        """How many CPU threads may be used."""

    @property
    def num_workers(self) -> int:
        """How many encoder calls are worth having under way at once."""

    @property
    def max_batch(self) -> int:
        """How many streams one encoder call should take at most."""

    def fbank(self, frames: Floats) -> Floats:
        """Features of frames float32 [N, L], samples in [-1, 1]: float32 [N, feature_dim]."""

    def encoder(self, x: Floats, slots: Ints, *, alone: bool = False) -> Floats:
        """Windows float32 [N, window_frames, feature_dim] of the streams in `slots` int64 [N] to encoder_out float32
        [N, T', joiner_dim], all of whose frames are valid. Takes their states one chunk further.

        `alone` says that no other call is under way, so that this one may use the whole machine. Raises EngineError,
        and the states are then as before.
        """

    def reset(self, slot: int) -> None:
        """Put the states of `slot` back to the beginning of a stream."""


def check_counts(counts: Mapping[str, int | None]) -> None:
    """Raises OptionsError where one of them, by its name, is given and below 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise OptionsError(f"Expected at least 1 of {name}, got {value}")
