"""`moulin serve` whose log goes to a pipe that nobody reads, as under a supervisor that hangs."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.cli.command import MOULIN, TIMEOUT_SEC, share_serving_environment
from tests.conftest import Recording

pytestmark = pytest.mark.triton

_PIPE_BYTES = 4096
_ROUNDS = 300
"""Each is a line of 120 bytes: nine times what the pipe holds."""
_ANSWER_SEC, _END_SEC = 10, 20


@dataclass(frozen=True)
class Unread:
    """A service, the address of its gateway, and the end of the pipe that is not read any more."""

    process: subprocess.Popen[bytes]
    address: str
    reader: int


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[Unread]:
    cache = tmp_path / "cache"
    share_serving_environment(cache)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ports = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--gateway-port=0")
    process = subprocess.Popen(
        [MOULIN, "serve", *ports],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    os.close(writer)
    said = b""
    deadline = time.monotonic() + TIMEOUT_SEC
    while b"Ctrl-C stops it" not in said:
        assert time.monotonic() < deadline, said
        more = os.read(reader, 1 << 16)
        assert more, said
        said += more
    match = re.search(rb"OpenAI +(http://\S+)/v1", said)
    assert match, said
    try:
        yield Unread(process, match[1].decode(), reader)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _is_served_and_ends(unread: Unread, recording: Recording) -> None:
    with httpx.Client(base_url=unread.address, timeout=_ANSWER_SEC) as client:
        for _ in range(_ROUNDS):
            assert client.get("/v1/models").status_code == 200
        content = Path(recording.file).read_bytes()
        answer = client.post(
            "/v1/audio/transcriptions", files={"file": ("a.flac", content)}, data={"model": "whisper-1"}
        )
        assert answer.json()["text"] == recording.text
        ready = client.get("/readyz").json()
        assert ready["status"] == "ready"
        assert {each["restarts"] for each in ready["processes"].values()} == {0}
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(_END_SEC) == 0


def test_nobody_reads(unread: Unread, recordings: list[Recording]) -> None:
    _is_served_and_ends(unread, recordings[0])
    os.close(unread.reader)


def test_the_reader_has_gone(unread: Unread, recordings: list[Recording]) -> None:
    os.close(unread.reader)
    _is_served_and_ends(unread, recordings[0])
