"""The steps of a live session. Sessions have no sockets, servers or clocks; `LiveConnection` has, and does the steps.

A session yields its steps one at a time, and receives their results in between:

    for step in session.receive(message):
        match step:
            case Event(): send step.fields to the client
            case Hear(): send step.samples to Triton; then session.heard(step, update) or session.failed(error)
            case Find(): look for the model, and fill in the result
            case Forget(): end the stream on Triton
            case Finish(): close the connection, and take no more steps

The next message is read when all steps of the one before are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from moulin.client.served_model import ServedModel
from moulin.gateway.api_error import ApiError
from moulin.gateway.live_audio import Samples
from moulin.live_transcript import StreamUpdate


@dataclass(frozen=True, slots=True)
class Event:
    """An event for the client, as JSON-ready fields."""

    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Hear:
    """Audio, float32 [N] at 16 kHz, for the stream on Triton. If none is open, one is opened with `options`.

    `end` is the reason why the stream ends with these samples, if it does: a commit, or no further audio.
    """

    samples: Samples
    model: str
    options: Mapping[str, Any]
    end: Literal["commit", "rest"] | None = None


@dataclass(slots=True, eq=False)
class Find:
    """A look-up of the served model for a client's `name`; the driver fills in the model or the refusal."""

    name: str
    model: ServedModel | None = None
    refusal: ApiError | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """End the stream on Triton, if one is open, and ignore its result."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of the session, because of `error` if there is one, of which the client has had its event."""

    error: ApiError | None = None


Step = Event | Hear | Find | Forget | Finish


class Session(Protocol):
    """One client's session, in either protocol."""

    @property
    def is_resting(self) -> bool:
        """Whether no stream is open on Triton."""

    def opening(self) -> Iterable[Step]:
        """The first events for the client."""

    def receive(self, message: str | bytes) -> Iterator[Step]:
        """Process a message of the client. An invalid one gets an error event, and the session continues."""

    def rest(self) -> Iterator[Step]:
        """After a while without audio: recognise what has been received, and end the stream on Triton."""

    def heard(self, step: Hear, update: StreamUpdate) -> Iterator[Step]:
        """Process the result of `step`."""

    def failed(self, error: Exception) -> Iterator[Step]:
        """Process the loss of the stream on Triton and its pending results. The next audio opens another stream."""

    def refused(self, error: ApiError) -> Step:
        """The error event for a client that is refused."""
