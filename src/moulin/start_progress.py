"""How far a model is while it loads, as lines of standard error: from its process in Triton to whoever started Triton.

What loads calls `tell`, and the GPU engine logs what is worth keeping. Within `progress_lines` both are written, a line
each; elsewhere nobody listens.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PREFIX = "moulin: "
"""The beginning of the lines of a model's process, by which `moulin serve` knows that they are no warnings."""

PASSING = " ..."
"""The end of those that matter until the next one comes."""

_logger = logging.getLogger("moulin.progress")
_LOGGERS = (_logger, logging.getLogger("moulin.gpu"), logging.getLogger("moulin.engine.gpu"))


def tell(text: str) -> None:
    """Say what is being done now, for example "loading weights"."""
    _logger.info("%s%s", text, PASSING)


@contextmanager
def progress_lines(instance: str | None = None) -> Iterator[None]:
    """Within it progress goes to standard error; with the name of a model's instance as a line of that for Triton."""
    head = "" if instance is None else f"{PREFIX}{instance}: "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(head.replace("%", "%%") + "%(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)  # others show these
    levels = [logger.level for logger in _LOGGERS]
    for logger in _LOGGERS:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(_LOGGERS, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
