"""The seam between moulin and whatever runs a model's three networks."""

from __future__ import annotations

from typing import Protocol

from moulin.arrays import Floats, Ints
from moulin.decoding.network import PredictionNetwork


class Runner(PredictionNetwork, Protocol):
    """A loaded transducer. All methods may be called from several threads at once."""

    @property
    def threads(self) -> int:
        """How many CPU threads the service may use."""

    @property
    def num_workers(self) -> int:
        """How many encoder calls are worth having under way at once."""

    @property
    def max_batch_frames(self) -> int:
        """How many feature frames, padding included, one encoder call should hold at most."""

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        """Features float32 [N, T, feature_dim] and their lengths int64 [N] to encoder_out float32
        [N, T', joiner_dim] and encoder_out_lens int64 [N].

        `alone` says that no other call is under way, so that this one may use the whole machine.
        """
