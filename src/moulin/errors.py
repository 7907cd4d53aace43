"""Everything that moulin raises on purpose.

    MoulinError
    ├── BundleError        a model directory is missing something, damaged, or not what was asked for
    │   └── PartsMissing          some of its networks are there, others are not
    ├── AudioError         a file or a waveform cannot be used as audio
    ├── OptionsError       an option or argument has a value that does not make sense
    ├── EngineError        the inference runtime is missing or refuses the model
    ├── StreamError        a stream cannot be opened, or the request does not fit its state
    │   └── StreamsFull           as many streams are open as may be
    ├── FetchError         a published model cannot be fetched (moulin.fetch.errors)
    │   └── Unreachable           nobody answers
    ├── LaunchError        tritonserver cannot be found, started or kept running
    └── ClientError        a request could not be answered
        ├── ServerUnavailable   nobody answers at that address, or the server is not ready
        ├── ServerTimeout       it takes longer than the client waits
        ├── ServerBusy          it has as much to do as it takes on: later it may answer
        └── RequestRefused      what was asked cannot be done: asking again gets the same answer

A message is one sentence that says what was expected, what came and where. What to do about it is the hint,
kept apart so that every surface (terminal, gRPC, HTTP) can lay it out in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence


class MoulinError(Exception):
    """Base class: `except MoulinError` catches all that moulin raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class BundleError(MoulinError):
    """A model directory is missing something, damaged, or not what was asked for."""


class PartsMissing(BundleError):
    """Of a model's files some are there, and those of `roles` (encoder, decoder, joiner) are not."""

    def __init__(self, where: str, roles: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(f"{where} has no {' and no '.join(f'{role}*.onnx' for role in roles)}", hint=hint)
        self.roles = tuple(roles)


class AudioError(MoulinError):
    """A file or a waveform cannot be used as audio."""


class OptionsError(MoulinError):
    """An option or argument has a value that does not make sense."""


class EngineError(MoulinError):
    """The inference runtime is missing or refuses the model."""


class StreamError(MoulinError):
    """A stream cannot be opened, or the request does not fit its state."""


class StreamsFull(StreamError):
    """As many streams are open as may be."""


class LaunchError(MoulinError):
    """tritonserver cannot be found, started or kept running."""


class ClientError(MoulinError):
    """A request could not be answered."""


class ServerUnavailable(ClientError):
    """Nobody answers at that address, or the server is not ready."""


class ServerTimeout(ClientError):
    """The server takes longer than the client waits."""


class ServerBusy(ClientError):
    """The server has as much to do as it takes on: later it may answer."""


class RequestRefused(ClientError):
    """What was asked cannot be done: asking again gets the same answer."""


def first_line(error: BaseException) -> str:
    """What `error` says, as much as goes into one of our sentences; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
