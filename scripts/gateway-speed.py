#!/usr/bin/env python3
"""CPU time of the gateway for each chunk of live streams over `WS /v1/stream`, of this checkout and of others by turns,
all in front of one service that does nothing.

    scripts/gateway-speed.py [--streams 64] [--chunks 150] [--rounds 3] [CHECKOUT …]

Every stream sends a chunk of 320 ms and a `ping`, and the next when the `pong` has come: a busy machine makes that
slower, and no chunk waits for others of its stream. Opening and ending a stream does not count. Prints a line of JSON a
run: microseconds of the gateway's process, how many of them in the kernel, those of this client, chunks in a request to
the service, and events of text a chunk. The texts must be the same, whatever the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from websockets.frames import Frame, Opcode

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.targets.triton import served
from moulin.evaluate.targets.triton_statistics import read_over_grpc
from moulin.launch.gateway import GatewayProcess
from moulin.launch.ports import claim_ports
from moulin.triton_repo.contract import MODEL_NAME

HERE = Path(__file__).parent.parent
SAMPLES = 5120
_HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


class Stream(asyncio.Protocol):
    """One stream of `chunks`, serialised frames with a ping behind each."""

    def __init__(self, chunks: Sequence[bytes], begun: asyncio.Barrier, over: asyncio.Barrier) -> None:
        self._chunks, self._begun, self._over = chunks, begun, over
        self._bytes = bytearray()
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if self._bytes.startswith(b"HTTP"):
            head, end, _ = bytes(self._bytes).partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head, head
            del self._bytes[: len(head + end)]
        while len(self._bytes) >= 4:
            begin, length = 2, self._bytes[1]
            if length == 126:
                begin, length = 4, int.from_bytes(self._bytes[2:4], "big")
            if len(self._bytes) < begin + length:
                return
            if self._bytes[0] == 0x80 | Opcode.TEXT:
                self._messages.put_nowait(bytes(self._bytes[begin : begin + length]))
            del self._bytes[: begin + length]

    async def run(self) -> str:
        """All chunks; the first before everybody begins to measure."""
        await self._until(b'"ready"')
        for number, chunk in enumerate(self._chunks):
            if number == 1:
                await self._begun.wait()
                self.events = 0
            self._transport.write(chunk)
            await self._until(b'"pong"')
        await self._over.wait()
        self._transport.write(Frame(Opcode.TEXT, b'{"type": "end"}').serialize(mask=True))
        done = json.loads(await self._until(b'"done"'))
        self._transport.close()
        return str(done["text"])

    async def _until(self, kind: bytes) -> bytes:
        while kind not in (message := await self._messages.get()):
            assert b'"error"' not in message, message
            self.events += 1
        return message


async def measure(
    address: str, pid: int, recordings: Sequence[Sequence[bytes]], streams: int
) -> tuple[dict[str, float], list[str]]:
    host, _, port = address.partition(":")
    loop = asyncio.get_running_loop()
    begun, over = asyncio.Barrier(streams + 1), asyncio.Barrier(streams + 1)
    opened = []
    for number in range(streams):
        chunks = recordings[number % len(recordings)]
        _, stream = await loop.create_connection(lambda chunks=chunks: Stream(chunks, begun, over), host, int(port))
        opened.append(stream)
    tasks = [asyncio.create_task(stream.run()) for stream in opened]
    for task in tasks:
        task.add_done_callback(_show)
    await begun.wait()
    before, own = _ticks(pid), resource.getrusage(resource.RUSAGE_SELF)
    await over.wait()
    user, system = (now - then for now, then in zip(_ticks(pid), before, strict=True))
    now = resource.getrusage(resource.RUSAGE_SELF)
    events = sum(stream.events for stream in opened)
    texts = await asyncio.gather(*tasks)
    chunks = streams * (len(recordings[0]) - 1)
    client = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    return {
        "us_a_chunk": round(1e6 * (user + system) / chunks, 1),
        "in_kernel": round(1e6 * system / chunks, 1),
        "client_us": round(1e6 * client / chunks, 1),
        "events_a_chunk": round(events / chunks, 2),
    }, texts


def _show(task: asyncio.Task[str]) -> None:
    """An exception of a stream ends everything."""
    if not task.cancelled() and (error := task.exception()):
        sys.exit(f"A stream failed: {error!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path)
    for name, value in (("streams", 64), ("chunks", 150), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    spec = load_bundle(DEMO_STREAMING_MODEL, expect="streaming")
    recordings = [_frames(read_audio(clip.audio), chosen.chunks) for clip in demo_clips()]
    settings = ServerSettings(moulin={"max-streams": str(2 * chosen.streams + 64)})
    with served(spec, settings, idle=True) as server, ExitStack() as stack:
        gateways = {}
        for checkout in (*chosen.checkouts, HERE):
            (port,) = claim_ports("127.0.0.1", {"gateway": 0}).values()
            arguments = ["--triton", server.grpc_url, "--port", str(port), "--quiet"]
            arguments += ["--max-streams", str(chosen.streams + 64)]
            environ = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
            gateway = GatewayProcess(arguments, address=f"127.0.0.1:{port}", environ=environ)
            gateways[checkout.resolve().name] = stack.enter_context(gateway), f"127.0.0.1:{port}"
        expected: list[str] = []
        for _ in range(chosen.rounds):
            for name, (gateway, address) in gateways.items():
                assert gateway.pid is not None
                before = read_over_grpc(server.grpc_url, MODEL_NAME)
                figures, texts = asyncio.run(measure(address, gateway.pid, recordings, chosen.streams))
                executions = (read_over_grpc(server.grpc_url, MODEL_NAME) - before).executions
                figures["chunks_a_request"] = round(chosen.streams * chosen.chunks / executions, 1)
                expected = expected or texts
                assert texts == expected
                assert all(texts)
                told = {"gateway": name, "pid": gateway.pid, "streams": chosen.streams, **figures}
                print(json.dumps(told), flush=True)
        server.stop()


def _frames(samples: np.ndarray, count: int) -> list[bytes]:
    """A recording, over and over, as `count` chunks of 16 bits."""
    audio = np.resize((samples * 32767).astype("<i2"), count * SAMPLES)
    ping = Frame(Opcode.TEXT, b'{"type": "ping", "id": 12}').serialize(mask=True)
    chunks = audio.reshape(count, SAMPLES)
    return [Frame(Opcode.BINARY, chunk.tobytes()).serialize(mask=True) + ping for chunk in chunks]


def _ticks(pid: int) -> tuple[float, float]:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK"), int(fields[12]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
