"""What `moulin serve` says on standard error: its own lines and Triton's, all as text or all as JSON."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import typer

from moulin.errors import MoulinError, OptionsError
from moulin.launch.repeats import Repeats
from moulin.launch.triton_lines import TritonLines
from moulin.log_form import LogFormat, formatter
from moulin.options import option

_NUMBERS = re.compile(r"[0-9]+")
_KEY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ServeLogOptions:
    """Options of the service's log. Raises OptionsError for `quiet` and `verbose` together."""

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
        self._repeats = Repeats(burst=100)
        self._lines = TritonLines(needs_gpu=False)

    def expect_gpu(self, needed: bool) -> None:
        """Whether a model needs a GPU; without one, that there is none is not worth a warning."""
        self._lines = TritonLines(needs_gpu=needed)

    def say(self, text: str, **fields: object) -> None:
        """A message as it is or, in JSON, its first line with `fields`."""
        if self.form == "text":
            typer.echo(text, err=True)
        else:
            first = text.strip().partition("\n")[0]
            self._write(logging.INFO, "moulin.serve", first, fields)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What moulin raises on purpose ends the command with status 1, in JSON if that was asked for."""
        try:
            yield
        except MoulinError as error:
            if self.form == "text":
                raise
            self._write(logging.ERROR, "moulin.serve", error.message, {"hint": error.hint} if error.hint else {})
            raise typer.Exit(1) from None

    def triton_line(self, line: str) -> None:
        """A line of tritonserver's output; the same, apart from numbers, only so often."""
        read = self._lines.read(line)
        hidden = self._quiet if read.is_ours else read.level < self._level
        if hidden or (self.form == "json" and not read.text.strip()):
            return
        left_out = self._repeats.admit(_NUMBERS.sub("#", read.text[:_KEY_LENGTH]))
        if left_out is None:
            return
        more = f" ({left_out} more like this were not shown)" if left_out else ""
        fields = {"source": read.source} if read.source else {}
        about = ""
        if self.form == "text" and not read.is_ours:
            about = f"Triton {logging.getLevelName(read.level).lower()}: " if read.source else "Triton: "
        self._write(read.level, "tritonserver", about + read.text + more, fields)

    def _write(self, level: int, logger: str, message: str, fields: dict[str, Any]) -> None:
        record = logging.LogRecord(logger, level, "", 0, message, None, None)
        vars(record).update(fields)
        line = self._formatter.format(record)
        is_dim = logger == "tritonserver" and level < logging.WARNING
        typer.secho(line, file=sys.stderr, dim=is_dim)
