"""What `moulin serve` says on standard error: its own lines, Triton's and those of libraries, in one form.

On a terminal its own lines are plain text; elsewhere each line begins with the date, or is a JSON object.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import typer

from moulin.cli.failures import ending_in, logged
from moulin.cli.messages import messages_to, styled
from moulin.errors import MoulinError, OptionsError
from moulin.launch.repeats import Repeats
from moulin.launch.triton_lines import TritonLines
from moulin.log_form import CLEAR_LINE, LogFormat, formatter
from moulin.options import option
from moulin.quoting import cut

_OWN, _TRITON = "moulin.serve", "tritonserver"
_NUMBERS = re.compile(r"[0-9]+")
_KEY_LENGTH = 200
_PROGRESS_EVERY_SEC = 5.0
_STATUS_WIDTH = 78
"""A line that is longer than the terminal is wide could not be replaced."""


@dataclass(frozen=True, slots=True)
class ServeLogOptions:
    """Options of the service's log. Raises OptionsError for `quiet` and `verbose` together."""

    help_section: ClassVar[str] = "Log"

    quiet: bool = option(False, "Show warnings and errors only, no line a request.")
    verbose: bool = option(False, "Show all of Triton's log, not only its warnings and errors.")
    log_format: Literal["text", "json"] = option("text", "Words, or a JSON object a line, Triton's log included.")

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise OptionsError("Expected --quiet or --verbose, got both")


class ServeLog:
    """Writes to standard error."""

    def __init__(self, options: ServeLogOptions) -> None:
        self.form: LogFormat = options.log_format
        self._level = logging.INFO if options.verbose else logging.WARNING
        self._quiet = options.quiet
        self._formatter = formatter(options.log_format)
        self._is_plain = options.log_format == "text" and sys.stderr.isatty()
        self._repeats = Repeats(burst=100)
        self._lines = TritonLines(needs_gpu=False)
        self._has_status, self._next_progress = False, 0.0

    def expect_gpu(self, needed: bool) -> None:
        """Whether a model needs a GPU; without one, that there is none is not worth a warning."""
        self._lines = TritonLines(needs_gpu=needed)

    def say(self, text: str, **fields: object) -> None:
        """A message as it is on a terminal, elsewhere line by line; in JSON its first line with `fields`."""
        if self._is_plain:
            self._clear_status()
            typer.echo(text, err=True)
            return
        lines = [line for line in text.splitlines() if line.strip()]
        for line in lines if self.form == "text" else lines[:1]:
            self._write(logging.INFO, _OWN, line, fields)

    @contextmanager
    def covering(self) -> Iterator[None]:
        """Within the block messages of the command line, Python's warnings and the logging of libraries come here too.

        So does what ends the service with status 1, unless a person at a terminal reads it, for whom `main` prints it.
        """
        handler = _LibraryLines(self)
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(True)
        try:
            if self._is_plain:
                yield
            else:
                with messages_to(self._message), ending_in(self._fail):
                    yield
        finally:
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(handler)

    def _fail(self, error: MoulinError) -> None:
        for message, fields in logged(error, self.form):
            self._write(logging.ERROR, _OWN, message, fields)

    def _message(self, level: int, text: str) -> None:
        if level < logging.WARNING:
            self.say(text)
        else:
            self._write(level, _OWN, text if self.form == "json" else f"warning: {text}", {})

    def triton_line(self, line: str) -> None:
        """A line of tritonserver's output; the same, apart from numbers, only so often."""
        read = self._lines.read(line)
        hidden = self._quiet if read.is_ours else read.level < self._level
        if hidden or (self.form == "json" and not read.text.strip()):
            return
        if read.is_passing:
            self._show_progress(read.text)
            return
        left_out = self._repeats.admit(_NUMBERS.sub("#", read.text[:_KEY_LENGTH]))
        if left_out is None:
            return
        more = f" ({left_out} more like this were not shown)" if left_out else ""
        fields = {"source": read.source} if read.source else {}
        about = ""
        if self.form == "text" and not read.is_ours:
            about = f"Triton {logging.getLevelName(read.level).lower()}: " if read.source else "Triton: "
        self._write(read.level, _TRITON, about + read.text + more, fields)

    def _write(self, level: int, logger: str, message: str, fields: dict[str, Any]) -> None:
        record = logging.LogRecord(logger, level, "", 0, message, None, None)
        vars(record).update(fields)
        self.write(record)

    def write(self, record: logging.LogRecord) -> None:
        """Write a record that is made already."""
        self._clear_status()
        line = self._formatter.format(record)
        is_dim = self._is_plain and record.name == _TRITON and record.levelno < logging.WARNING
        typer.echo(styled(line, dim=True) if is_dim else line, file=sys.stderr)

    def _show_progress(self, text: str) -> None:
        """On a terminal a line that the next one replaces; elsewhere a line now and then."""
        if self._is_plain:
            self._clear_status()
            typer.echo(styled(cut(text, _STATUS_WIDTH), dim=True), nl=False, err=True)
            self._has_status = True
        elif time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + _PROGRESS_EVERY_SEC
            self._write(logging.INFO, _TRITON, text, {})

    def _clear_status(self) -> None:
        if self._has_status:
            typer.echo(CLEAR_LINE, nl=False, err=True)
            self._has_status = False


class _LibraryLines(logging.Handler):
    """Warnings and errors of libraries in this process."""

    def __init__(self, log: ServeLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write(record)
