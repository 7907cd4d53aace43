"""`pip install ARGUMENTS` in a line that says how far it is; pip's own words only where it fails.

    python scripts/pip-install.py --editable '.[demo]'

pip's --quiet is silent for minutes, and without it a set-up prints two hundred lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque

_TERMINAL_EVERY_SEC, _LINE_EVERY_SEC = 0.5, 15.0
_WIDTH = 78
_STEPS = (
    (re.compile(r"Collecting (?P<what>[^\s<>=!~;\[(]+)"), "looking for {what}"),
    (
        re.compile(r"\s*Downloading (?:\S*/)?(?P<what>[^\s-]+)\S*\.whl \((?P<size>[^)]*)\)"),
        "downloading {what}, {size}",
    ),
    (re.compile(r"\s*Using cached (?P<what>[^\s-]+)"), "taking {what} from the cache"),
    (re.compile(r"Building wheel\S* for (?P<what>\S+)"), "building {what}"),
    (re.compile(r"Installing collected packages: (?P<what>.*)"), "unpacking {count} packages"),
)
"""Lines of pip, and what they mean."""


class Progress:
    """What pip does now, shown from time to time until `stop` is set."""

    def __init__(self) -> None:
        self.now, self.stop = "starting", threading.Event()
        self._started = time.monotonic()

    def note(self, line: str) -> None:
        for pattern, text in _STEPS:
            if found := pattern.match(line):
                self.now = text.format(**found.groupdict(), count=found["what"].count(",") + 1)
                return

    def show(self) -> None:
        """Until `stop`; a line that is replaced on a terminal, a new one now and then elsewhere."""
        terminal = sys.stderr.isatty()
        while not self.stop.wait(_TERMINAL_EVERY_SEC if terminal else _LINE_EVERY_SEC):
            line = f"  {time.monotonic() - self._started:3.0f} s  {self.now}"[:_WIDTH]
            print(f"\r\x1b[2K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)
        if terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """The exit status of pip."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    progress, said = Progress(), deque[str](maxlen=40)
    shown = threading.Thread(target=progress.show, daemon=True)
    shown.start()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line)
            progress.note(line)
    progress.stop.set()
    shown.join()
    if pip.returncode:
        sys.stderr.writelines(said)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
