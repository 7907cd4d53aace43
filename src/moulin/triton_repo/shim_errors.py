"""How shims sort errors for Triton."""

from __future__ import annotations

from moulin.errors import AudioError, MoulinError, OptionsError, StreamError, StreamsFull


def is_invalid(error: MoulinError) -> bool:
    """Whether it is the request that is wrong (INVALID_ARG), not the service (INTERNAL)."""
    return isinstance(error, AudioError | OptionsError | StreamError) and not isinstance(error, StreamsFull)
