"""What our GPU engine says while a model is loaded, as lines of standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PREFIX = "moulin: "
"""The beginning of the lines of a model's process, by which `moulin serve` knows that they are no warnings."""

_LOGGERS = ("moulin.gpu", "moulin.engine.gpu")


@contextmanager
def progress_log(prefix: str = "") -> Iterator[None]:
    """Within it the engine's messages go to standard error, a line each, with `prefix`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(prefix.replace("%", "%%") + "%(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)  # others show these
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
