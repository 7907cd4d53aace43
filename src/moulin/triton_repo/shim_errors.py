"""Classes of errors for the status codes of Triton."""

from __future__ import annotations

from moulin.errors import AudioError, MoulinError, OptionsError, StreamError, StreamsFull


def is_invalid(error: MoulinError) -> bool:
    """Whether the request is wrong (INVALID_ARG), not the service (INTERNAL)."""
    return isinstance(error, AudioError | OptionsError | StreamError) and not isinstance(error, StreamsFull)
