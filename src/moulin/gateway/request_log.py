"""Log records as JSON lines or as text, each with the id of its request."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

from moulin.gateway.request_context import REQUEST_ID
from moulin.launch.repeats import Repeats
from moulin.quoting import bounded, cut

LogFormat = Literal["text", "json"]

_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "about"}
"""Attributes of every log record; others come from `extra`."""


_MOST_BYTES = 16_000
"""The limit on one record, mostly for a traceback."""
_MOST_VALUE = 2000


class JsonFormatter(logging.Formatter):
    """A JSON object on each line: time, level, logger, message, request_id, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(record.getMessage(), _MOST_BYTES),
            **_request_id(),
            **{name: value for name, value in vars(record).items() if name not in _USUAL},
        }
        if record.exc_info:
            fields["exception"] = bounded(self.formatException(record.exc_info), _MOST_BYTES)
        return json.dumps({name: _short(value) for name, value in fields.items()}, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Text for a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s%(about)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        shown = {name: extra[name] for name in ("duration_ms", "model", "audio_sec") if name in extra} | _request_id()
        record.about = "".join(f"  {name}={_short(value)}" for name, value in shown.items())
        return bounded(super().format(record), _MOST_BYTES)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before an exception's traceback, as one line: what a client sent must not look like another."""
        return cut(super().formatMessage(record), _MOST_BYTES)


class RepeatFilter(logging.Filter):
    """Lets the same warning through a few times in ten seconds, and then says how many were left out.

    Lines are the same where their unformatted messages and exceptions are: what clients send makes no difference. A
    request that was answered is no warning and always shown; of those that were refused or failed, the first hundred
    with a status.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warnings, self._refused = Repeats(), Repeats(burst=100)

    def filter(self, record: logging.LogRecord) -> bool:
        status = getattr(record, "status", 0)
        if record.levelno >= logging.WARNING:
            error = record.exc_info[0] if record.exc_info else None
            left_out = self._warnings.admit((record.name, record.levelno, str(record.msg)[:200], error))
        elif isinstance(status, int) and status >= 400:
            left_out = self._refused.admit(status)
        else:
            return True
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this were not shown)", ()
        return left_out is not None


def log_to_stderr(form: LogFormat, *, quiet: bool = False) -> None:
    """Configure the gateway process's logging: a line for each request unless `quiet`, and warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _short(value: Any) -> Any:
    """The value of a field; long text is cut."""
    return bounded(value, _MOST_BYTES if "\n" in value else _MOST_VALUE) if isinstance(value, str) else value


def _request_id() -> dict[str, str]:
    request_id = REQUEST_ID.get()
    return {"request_id": request_id} if request_id else {}
