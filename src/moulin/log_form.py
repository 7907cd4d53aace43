"""Lines of a log, as JSON objects or as text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from moulin.quoting import bounded, cut

LogFormat = Literal["text", "json"]

CLEAR_LINE = "\r\x1b[2K"
"""What empties a terminal's line."""

_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "about"}
"""Attributes of every log record; others come from `extra`."""

_SHOWN = ("duration_ms", "model", "audio_sec", "moves", "key", "error", "origin", "request_id")
"""Of those the ones that a line of text has too."""

_MOST_BYTES = 16_000
"""The limit on one record, mostly for a traceback."""
_MOST_VALUE = 2000


def formatter(form: LogFormat, *, clears_line: bool = False) -> logging.Formatter:
    """For standard error: a terminal is shown the time of day, whatever else reads it gets the date too. Where another
    process may show its progress on the same terminal, `clears_line`."""
    if form == "json":
        return JsonFormatter()
    on_terminal = sys.stderr.isatty()
    return TextFormatter(with_date=not on_terminal, clears_line=clears_line and on_terminal)


class JsonFormatter(logging.Formatter):
    """A JSON object on each line: time, level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(record.getMessage(), _MOST_BYTES),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = bounded(self.formatException(record.exc_info), _MOST_BYTES)
        return json.dumps({name: _short(value) for name, value in fields.items()}, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """A line with the time, the message and the most important fields.

    With `clears_line` it takes the place of what stands on the terminal's line so far.
    """

    def __init__(self, *, with_date: bool = False, clears_line: bool = False) -> None:
        date = "%Y-%m-%dT%H:%M:%S%z" if with_date else "%H:%M:%S"
        super().__init__("%(asctime)s %(message)s%(about)s", date)
        self._before = CLEAR_LINE if clears_line else ""

    def format(self, record: logging.LogRecord) -> str:
        extra = _extra(record)
        record.about = "".join(f"  {name}={_short(extra[name])}" for name in _SHOWN if name in extra)
        return self._before + bounded(super().format(record), _MOST_BYTES)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before an exception's traceback, as one line: what a client sent must not look like another."""
        return cut(super().formatMessage(record), _MOST_BYTES)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


def _short(value: Any) -> Any:
    """The value of a field; long text is cut."""
    return bounded(value, _MOST_BYTES if "\n" in value else _MOST_VALUE) if isinstance(value, str) else value
