"""The exceptions of moulin.

    MoulinError
    ├── BundleError        a model directory lacks files, is damaged, or holds another kind of model
    │   └── MissingNetworkError   no encoder, decoder or joiner (moulin.bundle.choice)
    ├── AudioError         a file or a waveform cannot be used as audio
    │   └── AudioTooLong          longer than the caller's limit
    ├── OptionsError       an option or argument has an invalid value
    ├── EngineError        the inference runtime is missing or refuses the model
    ├── StreamError        a stream cannot be opened, or the request does not fit its state
    │   └── StreamsFull           the limit on open streams is reached
    ├── FetchError         a published model cannot be fetched (moulin.fetch.errors)
    │   └── Unreachable           the publishing server does not answer
    ├── LaunchError        tritonserver cannot be found, started or kept running
    └── ClientError        a request was not answered
        ├── ServerUnavailable   no server answers at the address, or it is not ready
        ├── ServerTimeout       the server takes longer than the client waits
        ├── ServerBusy          the server is at its limit; a later request may succeed
        └── RequestRefused      the request is invalid; repeating it gets the same answer

A message is one sentence: what was expected, what came and where. The hint says what to do about it; it is separate so
that every surface (terminal, gRPC, HTTP) can format it in its own way.
"""

from __future__ import annotations


class MoulinError(Exception):
    """The base class of all exceptions of moulin."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class BundleError(MoulinError):
    """A model directory lacks files, is damaged, or holds another kind of model than requested."""


class AudioError(MoulinError):
    """A file or a waveform cannot be used as audio."""


class AudioTooLong(AudioError):
    """Audio is longer than the caller's limit."""


class OptionsError(MoulinError):
    """An option or argument has an invalid value."""


class EngineError(MoulinError):
    """The inference runtime is missing or refuses the model."""


class StreamError(MoulinError):
    """A stream cannot be opened, or the request does not fit its state."""


class StreamsFull(StreamError):
    """The limit on open streams is reached, or the server is too busy for another.

    Over Triton both this and a server that is not ready have the status UNAVAILABLE. Every message of this error
    contains one of these phrases, by which clients of all versions recognise it.
    """

    IN_USE = "streams are in use"
    BUSY = "busy for another stream"


class LaunchError(MoulinError):
    """tritonserver cannot be found, started or kept running."""


class ClientError(MoulinError):
    """A request was not answered."""


class ServerUnavailable(ClientError):
    """No server answers at the address, or it is not ready."""


class ServerTimeout(ClientError):
    """The server takes longer than the client waits."""


class ServerBusy(ClientError):
    """The server is at its limit; a later request may succeed."""


class RequestRefused(ClientError):
    """The request is invalid; repeating it gets the same answer."""


def first_line(error: BaseException) -> str:
    """The first line of `error`'s message, for use in an error message; its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
