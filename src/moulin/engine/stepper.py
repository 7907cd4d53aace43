"""The seam between the streaming recognizer and whatever turns samples of streams into tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from moulin.decoding.found import Found
from moulin.streaming.inbox import Inbox
from moulin.streaming.turns import Turns


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Sizes for which a stepper is made."""

    capacity: int
    """Streams that may be open."""
    max_batch: int
    """Streams that one step should take at most."""
    num_workers: int = 1
    """Steps that are worth having under way at once."""
    gathering_sec: float = 0.0
    """The delay of a step that is worth while for more streams to take part."""


class Stepper(Protocol):
    """A loaded streaming transducer with its streams' audio, encoder states and searches, each stream in a slot."""

    @property
    def limits(self) -> StepLimits: ...

    @property
    def inbox(self) -> Inbox:
        """The audio of all streams. The recognizer appends to it, and removes a step's windows after the step."""

    def step(self, turns: Turns) -> Found:
        """Take streams one chunk further, all of which have a complete window.

        Steps of different streams may be made from several threads at once. Raises EngineError, and the streams are
        then as before.
        """
