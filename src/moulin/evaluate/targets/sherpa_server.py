"""The peer: sherpa-onnx's websocket servers (the PyPI package sherpa-onnx-bin), and streams and recordings to them.

To the online server a client sends float32 samples as binary messages and the text `Done` at the end; it sends a JSON
message after every encoder step of the stream, and `Done!` at the end. To the offline server a client sends the sample
rate, the number of bytes and float32 samples, in binary messages; the answer is a JSON message.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.bundle.tokens import tokens_text
from moulin.errors import EngineError, LaunchError, OptionsError
from moulin.evaluate.connection import Connection, Record
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.addresses import websocket_at
from moulin.evaluate.targets.in_process import with_tail
from moulin.evaluate.targets.sherpa_options import check_cpu, decoding_of, onnx
from moulin.evaluate.targets.target import SHERPA_SETTINGS, RunningTarget, ServerSettings
from moulin.evaluate.targets.web_socket import WebSocketConnection, WebSocketStream
from moulin.extras import install_hint
from moulin.launch import parent_death
from moulin.launch.ports import claim_ports
from moulin.launch.workspace import workspace
from moulin.spacing import join_texts

if TYPE_CHECKING:
    from websockets.frames import Frame

BINARY = "sherpa-onnx-online-websocket-server"
OFFLINE_BINARY = "sherpa-onnx-offline-websocket-server"

SERVER_TAIL_SEC = 0.01
"""Silence that the server itself appends. It must be above 0; the streams send what a clip really needs."""

_PIECE_BYTES = 256 * 1024
_READY_SEC = 60.0
_EXIT_SEC = 5.0


_OFFLINE_UNKNOWN = {"loop-interval-ms", "end-tail-padding"}


@contextmanager
def started(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The server for the model, with the best settings found and what `settings` changes of them."""
    check_cpu(settings.engine.device)
    method, beam = decoding_of(settings)
    decoding = {"decoding-method": method, "max-active-paths": str(beam)}
    with sherpa_server(onnx(spec), {**SHERPA_SETTINGS, **decoding, **settings.sherpa}) as (pid, port):
        yield RunningTarget(pid, partial(connect, f"ws://127.0.0.1:{port}"))


def at(address: str, _settings: ServerSettings) -> RunningTarget:
    """The server at ws://HOST:PORT."""
    return RunningTarget(None, partial(connect, websocket_at(address)))


def connect(url: str, clips: Sequence[Clip], _generator: int = 0) -> Connection:
    """A connection to the online server for chunks, to the offline one for whole recordings."""
    whole = all(clip.whole for clip in clips)
    if not whole and not all(clip.peer_steps for clip in clips):
        raise OptionsError(
            "sherpa-onnx's server does not say which chunk it answers", hint="name its model (--model), which does"
        )
    return SherpaOfflineConnection(url, clips) if whole else SherpaConnection(url, clips)


@contextmanager
def sherpa_server(spec: OnnxModelSpec, settings: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """A running server for the model: its process id and port. `settings` are options of its command line.

    Raises EngineError where it is not installed, LaunchError.
    """
    name = BINARY if spec.streaming else OFFLINE_BINARY
    settings = {"end-tail-padding": str(SERVER_TAIL_SEC), **settings}
    if not spec.streaming:
        settings = {option: value for option, value in settings.items() if option not in _OFFLINE_UNKNOWN}
    binary = Path(sys.executable).with_name(name)
    if not binary.exists():
        raise EngineError(f"The peer {name} is not installed", hint=install_hint("bench"))
    port = claim_ports("127.0.0.1", {"--port": 0})["--port"]
    with workspace("bench-sherpa") as folder:
        tokens = spec.files.tokens
        if tokens.suffix == ".model":
            tokens = folder / "tokens.txt"
            tokens.write_text(tokens_text(spec.tokens), encoding="utf-8")
        command = [
            str(binary),
            f"--port={port}",
            f"--encoder={spec.files.encoder}",
            f"--decoder={spec.files.decoder}",
            f"--joiner={spec.files.joiner}",
            f"--tokens={tokens}",
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
            _wait_ready(name, process, port, log)
            yield process.pid, port
        finally:
            _end(process)


class SherpaConnection(WebSocketConnection["SherpaStream"]):
    """Streams to the online server; every one is a websocket of its own, as the protocol has it."""

    def __init__(self, url: str, clips: Sequence[Clip]) -> None:
        messages = {id(clip): _messages(clip) for clip in clips}
        super().__init__(lambda record: SherpaStream(record, url, messages[id(record.clip)]))


def _messages(clip: Clip) -> list[bytes]:
    """The bytes for each chunk, made beforehand because that is most of the cost of sending."""
    from websockets.frames import Frame, Opcode

    audio = [*clip.chunks[:-1], np.concatenate([clip.chunks[-1], clip.tail])]
    frames = [Frame(Opcode.BINARY, samples.astype("<f4").tobytes()).serialize(mask=True) for samples in audio]
    frames[-1] += Frame(Opcode.TEXT, b"Done").serialize(mask=True)
    return frames


class SherpaStream(WebSocketStream):
    """One stream. Message k answers encoder step k, and so the chunk that made it possible."""

    def __init__(self, record: Record, url: str, messages: Sequence[bytes]) -> None:
        super().__init__(record, url)
        self._messages = messages
        self._num_messages = 0
        self._num_answered = 0  # chunks
        self._closed_text = ""

    def messages(self, index: int) -> bytes:
        return self._messages[index]

    def on_text(self, message: Frame, now: float) -> None:
        # `Done!` comes from another thread of the server than the messages, and may overtake the last of them.
        record, steps = self.record, self.record.clip.peer_steps
        if message.data == b"Done!" or self._num_messages == steps[-1]:
            return
        self._num_messages += 1
        while self._num_answered < len(steps) and steps[self._num_answered] <= self._num_messages:
            record.replied[self._num_answered] = now
            self._num_answered += 1
        fields = json.loads(bytes(message.data))
        text = join_texts(self._closed_text, fields["text"].strip())
        record.heard(text, now)
        if fields["is_final"]:
            self._closed_text = text
        if self._num_messages == steps[-1]:
            self.finish(text)


class SherpaOfflineConnection(WebSocketConnection["SherpaOfflineStream"]):
    """Recordings to the offline server, each on a websocket of its own."""

    def __init__(self, url: str, clips: Sequence[Clip]) -> None:
        messages = {id(clip): _whole_message(clip) for clip in clips}
        super().__init__(lambda record: SherpaOfflineStream(record, url, messages[id(record.clip)]))


class SherpaOfflineStream(WebSocketStream):
    """One recording."""

    def __init__(self, record: Record, url: str, message: bytes) -> None:
        super().__init__(record, url)
        self._message = message

    def messages(self, index: int) -> bytes:  # noqa: ARG002 (there is but one)
        return self._message

    def on_text(self, message: Frame, now: float) -> None:
        text = json.loads(bytes(message.data))["text"].strip()
        self.record.replied[0] = now
        self.record.heard(text, now)
        self.finish(text)


def _whole_message(clip: Clip) -> bytes:
    """All frames of a recording, serialised."""
    from websockets.frames import Frame, Opcode

    data = with_tail(clip.chunks[0]).astype("<f4").tobytes()
    # Pieces, because the server refuses large messages.
    whole = np.array([SAMPLE_RATE, len(data)], dtype="<i4").tobytes() + data
    pieces = [whole[start : start + _PIECE_BYTES] for start in range(0, len(whole), _PIECE_BYTES)]
    return b"".join(Frame(Opcode.BINARY, piece).serialize(mask=True) for piece in pieces)


def _wait_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when the server speaks: it listens long before that, while it loads."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    deadline = time.monotonic() + _READY_SEC
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            reason = lines[-1] if lines else "no output"
            raise LaunchError(f"Expected {name} to start, got: exited with code {process.returncode}: {reason}")
        with suppress(OSError, WebSocketException), connect(f"ws://127.0.0.1:{port}", open_timeout=5, proxy=None):
            return
        time.sleep(0.1)
    raise LaunchError(f"Expected {name} to be ready within {_READY_SEC:g} s, got no answer")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_EXIT_SEC)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
