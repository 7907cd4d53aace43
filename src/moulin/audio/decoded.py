"""What decoders give, and how they say that they cannot go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.errors import AudioError, first_line

logger = logging.getLogger(__name__)

# Rates of speech lie well within. Resampling from a header's 1 Hz would turn one megabyte into gigabytes.
_MIN_RATE, _MAX_RATE = 1_000, 768_000


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples float32 [n, channels] at `rate` Hz."""

    rate: int
    samples: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without audio before the next samples."""

    seconds: float


class CannotDecodeError(Exception):
    """A decoder library cannot read a file; str() is its reason."""


class StoppedEarlyError(Exception):
    """libsndfile gave up in the middle of a file; str() is its reason."""


class PyAvMissingError(Exception):
    """PyAV, which brings FFmpeg, is not installed."""


def described(error: Exception) -> str:
    """An exception's type and the first line of its message, for use in an error message."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # Python turns a StopIteration that leaves a generator into a RuntimeError
    said = first_line(error)
    kind = type(error).__name__
    return kind if said == kind else f"{kind}: {said}"


def reason(error: Exception) -> str:
    """A library's own words for a refusal, or ours; any other exception with its type."""
    if isinstance(error, CannotDecodeError):
        return str(error)
    if not is_the_librarys(error):
        return described(error)
    said = getattr(error, "error_string", None) or getattr(error, "strerror", None) or first_line(error)
    return str(said).rstrip(".")


def is_the_librarys(error: Exception) -> bool:
    """Whether libsndfile or FFmpeg raised `error` to refuse a file."""
    return type(error).__module__.partition(".")[0] in ("soundfile", "av")


def check_rate(rate: int, name: str) -> None:
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(f"{name}: expected a sample rate of {_MIN_RATE} to {_MAX_RATE} Hz, got {rate}")


def refusal(name: str, error: Exception) -> CannotDecodeError:
    """A library's own reason for refusing a file; for any other exception its description, with a log entry."""
    if isinstance(error, CannotDecodeError):
        return error
    if not is_the_librarys(error):
        logger.debug("%s: a decoder failed with an unexpected exception", name, exc_info=error)
    return CannotDecodeError(reason(error))


@contextmanager
def closing(name: str, decoder: Any) -> Iterator[None]:
    """Close `decoder` on leaving. Its failure to close is raised only where nothing else is being raised; closing the
    iterator early (GeneratorExit) counts as something else."""
    try:
        yield
    except BaseException:
        try:
            decoder.close()
        except Exception as error:
            logger.debug("%s: a decoder failed to close", name, exc_info=error)
        raise
    decoder.close()
