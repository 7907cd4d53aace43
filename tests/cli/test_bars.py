"""Progress on a real terminal: what is printed meanwhile stands on lines of its own, and on its own stream."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

from moulin.demo.files import DEMO_MODEL
from tests.conftest import Recording

from .command import MOULIN

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

STEPS = """
from moulin.cli.messages import echo, say, warn
from moulin.cli.steps import step
with step("Comparing"):
    warn("a doubt")
    echo("a result")
say("done")
"""


def on_terminal(*command: str, stdout: int | None = None) -> tuple[str, str]:
    """Standard error as a terminal of 100 columns gets it, with standard output too unless it goes elsewhere; and what
    a person sees of it in the end."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs if stdout is None else stdout, stderr=theirs, env=environ
    )
    os.close(theirs)
    parts: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                parts.append(data)
        except OSError:  # the terminal's other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(600) == 0 or process.returncode == 1
    reader.join()
    os.close(ours)
    raw = b"".join(parts).decode()
    return raw, _seen(raw)


def _seen(raw: str) -> str:
    """The lines that are left: carriage returns, and the two controls that rich erases bars with, are obeyed."""
    lines, at = [""], 0
    for part in re.split(r"(\r\n|\n|\r|\x1b\[\d*A|\x1b\[2?K)", raw):
        if part in ("\r\n", "\n"):
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif part == "\r":
            pass
        elif part.endswith("A") and part.startswith("\x1b"):
            at = max(0, at - int(part[2:-1] or 1))
        elif part.endswith("K") and part.startswith("\x1b"):
            lines[at] = ""
        else:
            lines[at] += _CONTROL.sub("", part)
    return "\n".join(lines)


def test_messages_stand_above_a_step() -> None:
    raw, seen = on_terminal(sys.executable, "-c", STEPS)
    assert "Comparing" in raw.partition("a doubt")[0]
    lines = [line.strip() for line in seen.splitlines() if line.strip()]
    assert lines == ["warning: a doubt", "a result", "Comparing", "done"]


def test_errors_and_texts_are_not_glued_to_the_bar(recordings: list[Recording], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("this is not audio")
    files = [str(recordings[0].file), str(bad), str(recordings[1].file)]
    raw, seen = on_terminal(MOULIN, "transcribe", *files, "--model", str(DEMO_MODEL))
    assert "Transcribing 3 recordings" in raw
    lines = [line.strip() for line in seen.splitlines() if line.strip()]
    assert lines[0] == f"{recordings[0].file}\t{recordings[0].text}"
    assert lines[1].startswith(f"{bad} cannot be decoded as audio")
    assert f"{recordings[1].file}\t{recordings[1].text}" in lines
    assert lines[-1].startswith("3 files, ")
    assert not [line for line in lines if "Transcribing" in line]


def test_texts_go_into_the_file_and_the_bar_to_the_terminal(recordings: list[Recording], tmp_path: Path) -> None:
    with (tmp_path / "texts").open("wb") as out:
        command = [MOULIN, "transcribe", str(recordings[0].file), "--model", str(DEMO_MODEL)]
        raw, _ = on_terminal(*command, stdout=out.fileno())
    assert (tmp_path / "texts").read_text() == recordings[0].text + "\n"
    assert recordings[0].text not in raw
