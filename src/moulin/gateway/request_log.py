"""The gateway's log: a line for each request with its id, and warnings that do not repeat without end."""

from __future__ import annotations

import logging

from moulin.gateway.request_context import REQUEST_ID
from moulin.launch.repeats import Repeats
from moulin.log_form import LogFormat, formatter


class RequestIdFilter(logging.Filter):
    """Gives each record the id of its request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if request_id := REQUEST_ID.get():
            record.request_id = request_id
        return True


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


class CutOffFilter(logging.Filter):
    """Says in our words, and as a warning, that a stop cuts off what is open; uvicorn calls that an error. Each of
    these requests has its answer and its own line."""

    _UVICORNS = "Cancel %s running task(s), timeout graceful shutdown exceeded"

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg == self._UVICORNS:
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
            record.msg = "The time to stop (--drain-sec) is over; requests and streams that are cut off: %s"
        return True


def log_to_stderr(form: LogFormat, *, quiet: bool = False) -> None:
    """Configure the gateway process's logging: a line for each request unless `quiet`, and warnings.

    Each clears the line before it: `moulin serve` shows on the same terminal how far its models are.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form, clears_line=True))
    handler.addFilter(RepeatFilter())
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(CutOffFilter())
