"""Errors of requests as a shim gives them to Triton."""

from __future__ import annotations

from moulin.errors import AudioError, EngineError, MoulinError, OptionsError, StreamError, StreamsFull, first_line
from moulin.quoting import cut


def is_invalid(error: MoulinError) -> bool:
    """Whether the request is wrong (INVALID_ARG), not the service (INTERNAL)."""
    return isinstance(error, AudioError | OptionsError | StreamError) and not isinstance(error, StreamsFull)


def unwritable(error: Exception) -> EngineError:
    """The error of a request whose reply cannot be made because of an unexpected `error`."""
    return EngineError(f"The reply cannot be written: {type(error).__name__}: {cut(first_line(error), 200)}")
