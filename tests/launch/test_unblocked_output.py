"""A reader that is slow, stops or goes away keeps nobody waiting."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest

from moulin.launch.unblocked_output import UnblockedOutput, unblock_stderr


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_all_of_it_comes_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = UnblockedOutput(writer)
    lines = [b"line %d\n" % number for number in range(1000)]
    for line in lines:
        output.write(line)
    output.drain()
    assert os.read(reader, 1 << 16) == b"".join(lines)


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """More than a pipe and the buffer hold is left out, and who reads again is told."""
    reader, writer = pipe
    output = UnblockedOutput(writer)

    def write() -> None:
        for _ in range(3000):
            output.write(b"x" * 999 + b"\n")

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(60)
    assert not writing.is_alive()
    read = b""
    while b"left out" not in read:
        read += os.read(reader, 1 << 20)
    assert read.count(b"x\n") < 1200
    assert read.endswith(b" pieces of output were left out: nobody read them)\n")


def test_the_reader_has_gone(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    output = UnblockedOutput(writer)
    output.write(b"lost")
    output.drain()
    assert output.write(b"lost too") == 8


def test_stderr_takes_what_its_encoding_cannot(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    before = os.fdopen(writer, "w", encoding="ascii")
    monkeypatch.setattr(sys, "stderr", before)
    unblock_stderr()
    print("one é \ud800", file=sys.stderr)
    assert sys.stderr.fileno() == writer
    told = b""
    while not told.endswith(b"\n"):  # `print` writes the end of the line by itself
        told += os.read(reader, 100)
    assert told == rb"one \xe9 \ud800" + b"\n"


def test_a_stderr_that_is_no_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(sys, "stderr", text)
    unblock_stderr()
    assert sys.stderr is text
