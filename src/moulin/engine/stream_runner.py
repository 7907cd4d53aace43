"""The seam between streaming recognition and whatever runs the networks and keeps the encoders' states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from moulin.arrays import Floats, Ints
from moulin.decoding.network import PredictionNetwork
from moulin.errors import OptionsError
from moulin.streaming.turns import Said, Turns
from moulin.streaming.window_layout import WindowLayout


class StreamLimits(PredictionNetwork, Protocol):
    """How many streams a loaded streaming transducer takes, and how."""

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


class StreamRunner(StreamLimits, Protocol):
    """A loaded streaming transducer with encoder states for `capacity` streams, each in a slot.

    The states never leave the device that they live on. Calls for different slots may be made from several threads at
    once.
    """

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


class StreamStepper(StreamLimits, Protocol):
    """A loaded streaming transducer that takes streams from samples to tokens by itself, each in a slot."""

    @property
    def inbox(self) -> Floats:
        """Where the streams' audio is put: the rings of a `moulin.streaming.inbox.Inbox`."""

    @property
    def windows(self) -> WindowLayout:
        """Which samples the encoder's windows are made from."""

    @property
    def chunk_encoder_frames(self) -> int:
        """Encoder frames of a step."""

    @property
    def beam_places(self) -> int:
        """The largest beam that it searches with."""

    def step(self, turns: Turns, encoder_out_of: Ints) -> Said:
        """Take the streams one chunk further, and bring the `encoder_out` of the rows `encoder_out_of` [N] too.
        Raises EngineError."""


def check_counts(counts: Mapping[str, int | None]) -> None:
    """Raises OptionsError where one of them, by its name, is given and below 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise OptionsError(f"Expected at least 1 of {name}, got {value}")
