"""The seam between offline recognition on the host and whatever runs a model's three networks."""

from __future__ import annotations

from typing import Protocol

from moulin.arrays import Floats, Ints
from moulin.decoding.network import PredictionNetwork


class OfflineEncoder(Protocol):
    """A loaded encoder of whole utterances. All methods may be called from several threads at once."""

    @property
    def num_workers(self) -> int:
        """Calls that are worth having under way at once."""

    @property
    def max_batch_frames(self) -> int:
        """Feature frames, padding included, that one call should hold at most."""

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        """Features float32 [N, T, feature_dim] and their lengths int64 [N] to encoder_out float32
        [N, T', joiner_dim] and encoder_out_lens int64 [N]. That of a transducer with a CTC head gives one channel more
        (`moulin.decoding.blank_skip`).

        `alone` says that no other call is under way, so that this one may use the whole machine. Raises EngineError.
        """


class CtcRunner(OfflineEncoder, Protocol):
    """A loaded encoder whose frames are searched without further networks: `encoder` gives a CTC head's
    log-probabilities [N, T', vocab_size] as encoder_out. All methods may be called from several threads at once."""

    @property
    def threads(self) -> int:
        """CPU threads that the service may use."""


class Runner(CtcRunner, PredictionNetwork, Protocol):
    """A loaded transducer, whose `encoder` gives frames for the joiner. All methods may be called from several threads
    at once."""
