"""Pictures of a terminal, as SVG: a command runs on a real pseudo-terminal, and an emulator says what stands on it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS, ROWS = 92, 40
_PATIENCE_SEC = 300
_UNIQUE_ID = "session"
_FONTS = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace'
_FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"><style>
.{unique_id}-matrix {{ font: {char_height}px FONTS; white-space: pre }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
""".replace("FONTS", _FONTS)
"""Rich's own form without the fonts that it loads from elsewhere."""


class _Screen(pyte.Screen):
    """A terminal that knows dim text, which pyte does not: it is kept as italics, which moulin never prints."""

    def select_graphic_rendition(self, *attributes: int, **private: bool) -> None:
        super().select_graphic_rendition(*(3 if one == 2 else one for one in attributes), **private)


@dataclass(frozen=True)
class Capture:
    """What stood on the terminal at some moment, lines without the empty ones at the end."""

    lines: list[Text]

    @property
    def text(self) -> str:
        return "\n".join(line.plain.rstrip() for line in self.lines)

    def svg(self, command: str, replaced: Callable[[str], str] = str) -> str:
        """A picture of the command and the lines behind it, each with its text `replaced`."""
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        for line in [Text.assemble(("$ ", "dim"), command), *self.lines]:
            shown = line.copy()
            shown.plain = replaced(line.plain)
            console.print(shown, soft_wrap=True, highlight=False)
        return console.export_svg(title="", theme=MONOKAI, code_format=_FORMAT, unique_id=_UNIQUE_ID)


class Terminal:
    """A command on a terminal of its own; `close` it."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._screen = _Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def until(self, stands_there: Callable[[str], bool]) -> Capture:
        """What is on the terminal as soon as its text is such; raises RuntimeError where the command ends before."""
        deadline = time.monotonic() + _PATIENCE_SEC
        while not stands_there((capture := self.capture()).text):
            if not self._read() or time.monotonic() > deadline:
                raise RuntimeError(f"The terminal never showed what was waited for:\n{capture.text}")
        return capture

    def until_it_ends(self) -> Capture:
        while self._read():
            pass
        self.process.wait()
        return self.capture()

    def close(self) -> None:
        """End the command, if it runs still."""
        if self.process.poll() is None:
            self.process.terminate()
        self.until_it_ends()
        os.close(self._master)

    def capture(self) -> Capture:
        lines = [self._line(row) for row in range(ROWS)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        return Capture(lines)

    def _read(self) -> bool:
        """Read what the command has printed; False when it has ended."""
        try:
            said = os.read(self._master, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self._stream.feed(said)
        return bool(said)

    def _line(self, row: int) -> Text:
        text = Text()
        characters = (self._screen.buffer[row][column] for column in range(COLUMNS))
        for style, alike in groupby(characters, _style):
            text.append("".join(one.data for one in alike), style)
        text.rstrip()
        return text


def _style(one: pyte.screens.Char) -> Style:
    return Style(color=_colour(one.fg), bold=one.bold, dim=one.italics, reverse=one.reverse)


def _colour(name: str) -> str | None:
    """Rich's name of one of pyte's colours."""
    if name == "default":
        return None
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name):
        return f"#{name}"
    plain = name.removeprefix("bright")
    return ("bright_" if plain != name else "") + {"brown": "yellow"}.get(plain, plain)
