"""The caller's side: recordings as pieces, each decoded by a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import numpy as np

from moulin.audio.selection import MIX, Selection
from moulin.errors import AudioError, MoulinError, ServerUnavailable
from moulin.isolated_decoding.messages import ERRORS, LENGTHS, MAX_ORDER_BYTES, UNEXPECTED, DecodingLimits, Order
from moulin.launch.liveness import ProcessLiveness
from moulin.launch.vital_signs import signs_of
from moulin.long_audio.cutter import Piece, Place

logger = logging.getLogger(__name__)

_READY_SEC = 60.0
_STALLED_SEC = 120.0
"""The time after which a process that sends nothing, and uses no CPU time that would end it, is killed."""

_LOOK_SEC = 1.0
"""The pause between two looks at the server of the processes."""

_END_SEC = 5.0
_BUSY_SEC = 0.01
"""The pause before a message is sent again to a server that has too many to read."""


class DecodingProcesses:
    """The fork server of one event loop. It is started when it is first needed, and again when it has ended."""

    def __init__(self, limits: DecodingLimits | None = None) -> None:
        self._limits = limits or DecodingLimits()
        self._numbers = count()
        self._server: _Server | None = None
        self._starting: asyncio.Task[_Server] | None = None

    async def close(self) -> None:
        """End the server, and with it all processes."""
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._server is not None:
            await self._server.close()

    async def start(self) -> None:
        """Have the server ready, so that the first recording does not wait for it."""
        await self._running()

    @asynccontextmanager
    async def decoding(
        self,
        recording: int,
        name: str,
        selection: Selection = MIX,
        *,
        max_audio_sec: float,
        max_utterance_sec: float | None,
        peaks: bool = False,
    ) -> AsyncIterator[Decoding]:
        """What `selection` takes of the open file `recording`, whose process is killed on leaving. `name` is for error
        messages.

        Without `max_utterance_sec` its pieces are all of its audio in blocks of about a second. With `peaks` see
        `Decoding.taken_peaks`.
        """
        order = Order(next(self._numbers), name, max_utterance_sec, max_audio_sec, selection, self._limits, peaks)
        async with self._decoding(order, recording) as decoding:
            yield decoding

    @asynccontextmanager
    async def decoding_live(self, name: str) -> AsyncIterator[tuple[Decoding, socket.socket]]:
        """The audio of a container as it comes, all of it in blocks of whatever length, and a socket that does not
        block, into which the container's bytes are to be written and which is to be shut down behind the last."""
        order = Order(next(self._numbers), name, None, math.inf, limits=self._limits, live=True)
        feed, fed = socket.socketpair()
        feed.setblocking(False)
        with feed, fed:
            async with self._decoding(order, fed.fileno()) as decoding:
                fed.close()  # the process has its own
                yield decoding, feed

    @asynccontextmanager
    async def _decoding(self, order: Order, recording: int) -> AsyncIterator[Decoding]:
        server = await self._running()
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        with mine:
            with theirs:
                await server.begin(order, recording, theirs.fileno())
            decoding = Decoding(order, server, mine)
            try:
                yield decoding
            finally:
                server.end(order, is_done=decoding.is_done)

    async def _running(self) -> _Server:
        """One start for all who wait for it; it goes on when one of them leaves."""
        if self._server is not None and not self._server.has_ended:
            return self._server
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._started())
        return await asyncio.shield(self._starting)

    async def _started(self) -> _Server:
        if self._server is not None:
            await self._server.close()
        self._server = await _Server.started()
        return self._server


class Decoding(AsyncIterator[Piece]):
    """The pieces of one recording, in order.

    Raises AudioError, also where its process was stopped or crashed; ServerUnavailable where it could not be started
    or went with its server; EngineError where cutting needs ONNX Runtime and it is missing; RuntimeError for a fault of
    our own.
    """

    def __init__(self, order: Order, server: _Server, result: socket.socket) -> None:
        self._order, self._server, self._result = order, server, result
        self.decoded_sec = 0.0
        """Seconds decoded so far; the recording's duration when there are no more pieces."""
        self.warnings: tuple[str, ...] = ()
        """What of the recording is missing or was chosen; there when there are no more pieces."""
        self.is_done = False
        """Whether all pieces have come."""
        self._peaks: list[dict[str, Any]] = []

    async def __anext__(self) -> Piece:
        while not self.is_done:
            header, samples = await self._message()
            self.decoded_sec = header.get("decoded_sec", self.decoded_sec)
            self._peaks += header.get("peaks", ())
            if "start" in header:
                place = None if header["place"] is None else Place(*header["place"])
                return Piece(header["start"], np.frombuffer(samples, np.float32), place)
            self._note(header)
        raise StopAsyncIteration

    def taken_peaks(self) -> list[dict[str, Any]]:
        """Peaks of what was decoded since the last call, if they were asked for: JSON-ready, as of `PeaksOf.taken`; of
        each channel and track that is heard by itself."""
        taken, self._peaks = self._peaks, []
        return taken

    def _note(self, header: dict[str, Any]) -> None:
        self.is_done = "done" in header
        self.warnings = tuple(header.get("warnings", ()))
        if (kind := header.get("error")) in ERRORS:
            raise ERRORS[kind](header["message"], hint=header["hint"])
        if kind == UNEXPECTED:
            raise RuntimeError(f"decoding {self._order.name}: {header['message']}")
        if "log" in header:
            logging.getLogger(header["log"]).log(header["level"], "%s", header["message"])

    async def _message(self) -> tuple[dict[str, Any], bytearray]:
        try:
            async with asyncio.timeout(None if self._order.live else _STALLED_SEC):
                of_header, of_samples = LENGTHS.unpack(await self._read(LENGTHS.size))
                return json.loads(await self._read(of_header)), await self._read(of_samples)
        except TimeoutError:
            raise AudioError(f"{self._order.name} cannot be decoded: the decoder does not go on") from None

    async def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        at, loop = 0, asyncio.get_running_loop()
        with memoryview(data) as view:
            while at < length:
                received = 0
                with contextlib.suppress(ConnectionResetError):
                    received = await loop.sock_recv_into(self._result, view[at:])
                if received == 0:
                    raise await self._end()
                at += received
        return data

    async def _end(self) -> MoulinError:
        """Why the process has ended without saying so."""
        status = await self._server.status(self._order)
        name, limits = self._order.name, self._order.limits
        if status is None or status >= 0:  # nothing in a recording ends it like that
            return ServerUnavailable(
                f"{name} was not decoded: the process for it could not be started or has ended", hint="try again"
            )
        if status == -signal.SIGXCPU:
            allowed = limits.allowed_cpu_sec(self.decoded_sec)
            why = f"the decoder needed more than {allowed:.0f} s of CPU time for {self.decoded_sec:.0f} s of audio"
        elif status == -signal.SIGKILL:
            why = "the decoder was killed, perhaps because memory was short"
        else:
            why = f"the decoder crashed on it ({signal.Signals(-status).name})"
        return AudioError(f"{name} cannot be decoded: {why}")


class _Server:
    """A running fork server."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process, self._control = process, control
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends: dict[int, asyncio.Future[int]] = {}
        """How the process of each order has ended or will end: its status as of `subprocess`."""
        self.has_ended = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control, self._take_reports)
        self._answered = False
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def started(cls) -> _Server:
        """Raises ServerUnavailable where it does not start, which is a fault of the installation or of the machine."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with theirs:
            command = [sys.executable, "-P", "-m", "moulin.isolated_decoding.fork_server", str(theirs.fileno())]
            process = await asyncio.to_thread(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        server = cls(process, control)
        try:
            async with asyncio.timeout(_READY_SEC):
                await server._ready
        except (TimeoutError, ConnectionError):
            await server.close()
            raise ServerUnavailable("The processes that decode recordings do not start") from None
        server._watch = asyncio.create_task(server._watched())
        return server

    async def _watched(self) -> None:
        """Kill it where it is stopped or hangs; the next recording starts another, and those under way fail."""
        liveness = ProcessLiveness("The server of the processes that decode recordings")
        while not self.has_ended and (signs := signs_of(self._process.pid)) is not None:
            failure = liveness.observe(signs, self._loop.time(), answers=self._answered)
            if failure is not None:
                logger.warning("%s; it is started again", failure.reason)
                self._process.kill()  # which ends its processes
                self._lost()
                return
            self._answered = False
            self._tell(b'{"alive": 1}')
            await asyncio.sleep(_LOOK_SEC)

    async def begin(self, order: Order, recording: int, result: int) -> None:
        self._ends[order.number] = self._loop.create_future()
        while True:
            try:
                socket.send_fds(self._control, [order.to_bytes()], [recording, result])
                return
            except BlockingIOError:
                await asyncio.sleep(_BUSY_SEC)
            except OSError:
                self._lost()
                return  # the closed socket of its result says so

    def end(self, order: Order, *, is_done: bool) -> None:
        """Let the order's process take another or, unless it is done, kill it."""
        end = self._ends.pop(order.number)
        if not end.done():
            self._tell(json.dumps({"free" if is_done else "kill": order.number}).encode())

    def _tell(self, message: bytes) -> None:
        """Send `message`, later where the server has too many to read: a process whose end is not told would stay."""
        if self.has_ended:
            return
        try:
            self._control.send(message)
        except BlockingIOError:
            self._loop.call_later(_BUSY_SEC, self._tell, message)
        except OSError:
            self._lost()

    async def status(self, order: Order) -> int | None:
        """How the order's process has ended; None where nobody knows."""
        try:
            async with asyncio.timeout(_END_SEC):
                return await asyncio.shield(self._ends[order.number])
        except (TimeoutError, ConnectionError):
            return None

    async def close(self) -> None:
        self._lost()
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def _take_reports(self) -> None:
        while True:
            try:
                data = self._control.recv(MAX_ORDER_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            report = json.loads(data)
            if "ready" in report:
                self._ready.set_result(None)
            elif "alive" in report:
                self._answered = True
            elif (end := self._ends.get(report["ended"])) is not None and not end.done():
                end.set_result(report["status"])

    def _lost(self) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        self._loop.remove_reader(self._control)
        self._control.close()
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
        futures: list[asyncio.Future[Any]] = [self._ready, *self._ends.values()]
        for waited_for in futures:
            if not waited_for.done():
                waited_for.set_exception(ConnectionError("the server has ended"))
                waited_for.exception()  # whoever waits gets it; nobody else has to
        self._process.poll()
