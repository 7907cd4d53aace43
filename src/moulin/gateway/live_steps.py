"""What a live session wants done. Sessions know no sockets, no servers and no clocks; `LiveConnection` has them.

A session gives its steps one after another, and takes in between what they bring:

    for step in session.receive(message):
        match step:
            case Event(): send step.fields to the client
            case Hear(): send step.samples to Triton; then session.heard(step, update) or session.failed(error)
            case Find(): look for the model, and fill in what was found
            case Forget(): let the stream on Triton go
            case Finish(): close the connection, and take no more steps

Only when all steps of one message are done comes the next message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from moulin.gateway.api_error import ApiError
from moulin.gateway.live_audio import Samples
from moulin.live_transcript import StreamUpdate


@dataclass(frozen=True, slots=True)
class Event:
    """For the client, ready for JSON."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Hear:
    """Audio, float32 [N] at 16 kHz, for the stream on Triton. Where none is open, one begins with `options`.

    `end` says why it ends with these samples, if it does: the client has said so, or no audio comes.
    """

    samples: Samples
    model: str
    options: Mapping[str, Any]
    end: Literal["commit", "rest"] | None = None


@dataclass(slots=True, eq=False)
class Find:
    """The served model that a client means by `name`. Whoever drives fills in either of the two."""

    name: str
    model: str | None = None
    refusal: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """End the stream on Triton, if one is open; what it heard does not matter."""


@dataclass(frozen=True, slots=True)
class Finish:
    """All is said."""


Step = Event | Hear | Find | Forget | Finish


class Session(Protocol):
    """One client's conversation with us, in whatever protocol."""

    @property
    def is_resting(self) -> bool:
        """Whether no stream is open on Triton."""

    def opening(self) -> Iterable[Step]:
        """What the client gets first."""

    def receive(self, message: str | bytes) -> Iterator[Step]:
        """A message of the client's. What is wrong with it is told to the client, and the session goes on."""

    def rest(self) -> Iterator[Step]:
        """No audio has come for a while: take what is there for all, and let the stream on Triton go."""

    def heard(self, step: Hear, update: StreamUpdate) -> Iterator[Step]:
        """What `step` brought."""

    def failed(self, error: Exception) -> Iterator[Step]:
        """The stream on Triton is lost, and with it what it had not said yet. The next audio begins another."""

    def refused(self, error: ApiError) -> Step:
        """What the client is told before it is turned away."""
