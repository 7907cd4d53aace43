"""The peer: sherpa-onnx's online websocket server (the PyPI package sherpa-onnx-bin), and streams to it.

A client sends float32 samples as binary messages and the text `Done` at the end; the server sends a JSON message after
every encoder step of the stream, and `Done!` at the end. The streams here are websockets' protocol core on asyncio's
transports: one callback a chunk, no task, so that the load generator leaves the cores to the servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import EngineError, LaunchError
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.streaming_load import StreamRecord
from moulin.launch import parent_death
from moulin.launch.ports import claim_ports
from moulin.launch.workspace import workspace
from moulin.spacing import join_texts

if TYPE_CHECKING:
    from websockets.frames import Frame

BINARY = "sherpa-onnx-online-websocket-server"

SERVER_TAIL_SEC = 0.01
"""Silence that the server itself appends. It must be above 0; the streams send what a clip really needs."""

BEST_SETTINGS: Mapping[str, str] = {
    "max-batch-size": "16",
    "num-work-threads": "2",
    "num-threads": "1",
    "num-io-threads": "1",
    "loop-interval-ms": "1",
}

_READY_SEC = 60.0
_EXIT_SEC = 5.0


@contextmanager
def sherpa_server(spec: OnnxModelSpec, settings: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """A running server: its process id and port. Raises EngineError where it is not installed, LaunchError."""
    binary = Path(sys.executable).with_name(BINARY)
    if not binary.exists():
        raise EngineError(f"The peer {BINARY} is not installed", hint="pip install 'moulin[bench]'")
    port = claim_ports("127.0.0.1", {"--port": 0})["--port"]
    with workspace("bench-sherpa") as folder:
        command = [
            str(binary),
            f"--port={port}",
            f"--encoder={spec.files.encoder}",
            f"--decoder={spec.files.decoder}",
            f"--joiner={spec.files.joiner}",
            f"--tokens={spec.files.tokens}",
            f"--end-tail-padding={SERVER_TAIL_SEC}",
            f"--log-file={folder / 'connections.log'}",
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        log = folder / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_ready(process, port, log)
            yield process.pid, port
        finally:
            _end(process)


class SherpaConnection:
    """A `Connection` of the load generator; every stream is a websocket of its own, as the protocol has it."""

    def __init__(self, port: int, clips: Sequence[Clip]) -> None:
        self._port = port
        self._messages = {id(clip): _messages(clip) for clip in clips}
        self._opening: set[asyncio.Task[None]] = set()

    def open(self, record: StreamRecord) -> SherpaStream:
        stream = SherpaStream(record, self._port, self._messages[id(record.clip)])
        task = asyncio.get_running_loop().create_task(stream.connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return stream

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()


def _messages(clip: Clip) -> list[bytes]:
    """What goes over the wire for each chunk, made beforehand: it is most of what sending costs."""
    from websockets.frames import Frame, Opcode

    audio = [*clip.chunks[:-1], np.concatenate([clip.chunks[-1], clip.tail])]
    frames = [Frame(Opcode.BINARY, samples.astype("<f4").tobytes()).serialize(mask=True) for samples in audio]
    frames[-1] += Frame(Opcode.TEXT, b"Done").serialize(mask=True)
    return frames


class SherpaStream(asyncio.Protocol):
    """One stream. Message k answers encoder step k, and so the chunk that made it possible."""

    def __init__(self, record: StreamRecord, port: int, messages: Sequence[bytes]) -> None:
        from websockets.client import ClientProtocol
        from websockets.uri import parse_uri

        self._record, self._port, self._messages = record, port, messages
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}"))
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._open = self._abandoned = False
        self._unsent: deque[int] = deque()
        self._num_messages = 0
        self._num_answered = 0  # chunks
        self._text = ""

    async def connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self, "127.0.0.1", self._port)
        except OSError as error:
            self._fail(f"cannot connect: {error.strerror or error}")

    def send(self, index: int) -> None:
        if not self._open:
            self._unsent.append(index)
            return
        assert self._transport is not None
        self._record.sent[index] = self._loop.time()
        self._transport.write(self._messages[index])

    def abandon(self) -> None:
        self._abandoned = True
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        from websockets.frames import Frame, Opcode

        now = self._loop.time()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                self._opened()
            elif event.opcode is Opcode.TEXT:
                self._message(event, now)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        if self._record.text is None and not self._abandoned:
            self._fail(f"the server closed the connection{f': {error}' if error else ''}")

    def _opened(self) -> None:
        if self._protocol.handshake_exc:
            self._fail(f"the server refused the connection: {self._protocol.handshake_exc}")
            return
        self._open = True
        while self._unsent:
            self.send(self._unsent.popleft())

    def _message(self, message: Frame, now: float) -> None:
        # `Done!` comes from another thread of the server than the messages, and may overtake the last of them.
        record, steps = self._record, self._record.clip.peer_steps
        if message.data == b"Done!" or self._num_messages == steps[-1]:
            return
        self._num_messages += 1
        while self._num_answered < len(steps) and steps[self._num_answered] <= self._num_messages:
            record.replied[self._num_answered] = now
            self._num_answered += 1
        is_last = self._num_messages == steps[-1]
        # The text of a segment is complete with its last message; parsing the others would be for nothing.
        if is_last or b'"is_final": true' in message.data:
            self._text = join_texts(self._text, json.loads(bytes(message.data))["text"].strip())
        if is_last:
            record.text = self._text
            if self._transport:
                self._transport.close()

    def _fail(self, why: str) -> None:
        if self._record.failure is None and self._record.text is None:
            self._record.failure = why
        if self._transport:
            self._transport.abort()

    def _flush(self) -> None:
        data = self._protocol.data_to_send()
        if data and self._transport:
            self._transport.writelines(data)


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server speaks: it listens long before that, while it loads."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    deadline = time.monotonic() + _READY_SEC
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            reason = lines[-1] if lines else "no output"
            raise LaunchError(f"Expected {BINARY} to start, got: exited with code {process.returncode}: {reason}")
        with suppress(OSError, WebSocketException), connect(f"ws://127.0.0.1:{port}", open_timeout=5, proxy=None):
            return
        time.sleep(0.1)
    raise LaunchError(f"Expected {BINARY} to be ready within {_READY_SEC:g} s, got no answer")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_EXIT_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
