#!/usr/bin/env python3
"""The memory of `moulin serve` over many requests, each with hotwords of its own, over gRPC and REST.

    scripts/hotwords-memory.py [--requests 100000] [--phrases 10] [--rest 0.2] [--seconds 3600]

The bundled offline model gets a tenth of a second of speech with each request, and ten phrases that no request before
had, 64 requests at a time; the share `--rest` of them are uploads with `keywords[]` to the gateway. Ten times in
between, the proportional memory (PSS) of its processes is printed, by process. Ends with status 1 where the end is more
than 16 MiB above a fifth of the way. `--seconds` ends it early. Needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

from moulin.client import AsyncClient
from moulin.demo.files import DEMO_MODEL, demo_speech

AT_ONCE = 64
GROWTH_MIB = 16
PORTS = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--gateway-port=0")
WORDS = (
    *("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "OH"),
    *("FOX", "GHOST", "VOTE", "EXIT"),
)


def phrases(chosen: random.Random, count: int) -> list[str]:
    """Four words each, of 50,000 such phrases: lists of ten do not repeat."""
    return [" ".join(chosen.choices(WORDS, k=4)) for _ in range(count)]


class Load:
    """Requests with new phrases, over gRPC and REST by turns of chance."""

    def __init__(self, grpc: AsyncClient, rest: httpx.AsyncClient, size: int, rest_share: float) -> None:
        self._grpc, self._rest, self._size, self._rest_share = grpc, rest, size, rest_share
        self._chosen = random.Random(0)
        self._speech = demo_speech()[0][8000:9600]
        self._upload = _wav(np.round(self._speech * 32767).astype(np.int16).tobytes())
        self.sent: Counter[str] = Counter()

    async def send(self, count: int, until: float) -> None:
        """`count` requests, AT_ONCE at a time, or fewer where the clock reaches `until`. Raises what a request does."""
        left = iter(range(count))

        async def one_after_another() -> None:
            for _ in left:
                if time.monotonic() > until:
                    return
                await self._one()

        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))

    async def _one(self) -> None:
        words = phrases(self._chosen, self._size)
        if self._chosen.random() >= self._rest_share:
            await self._grpc.transcribe(self._speech, hotwords=words)
            self.sent["gRPC"] += 1
            return
        form = {"model": "whisper-1", "keywords[]": words}
        answer = await self._rest.post("/v1/audio/transcriptions", files={"file": self._upload}, data=form)
        answer.raise_for_status()
        self.sent["REST"] += 1


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, 16000, 0, "NONE", ""))
        written.writeframes(samples)
    return file.getvalue()


def memory_mib(root: int) -> dict[str, float]:
    """The proportional memory of a process and all below it, by name."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    found: dict[str, float] = {}
    for pid in family:
        with suppress(OSError):
            size = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found[name] = found.get(name, 0.0) + (int(size[1]) / 1024 if size else 0.0)
    return found


@contextmanager
def serving() -> Iterator[tuple[int, str, str]]:
    """A service of the bundled offline model: its process, and the addresses of gRPC and of the gateway."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        moulin = str(Path(sys.executable).with_name("moulin"))
        with log.open("wb") as file:
            command = [moulin, "serve", str(DEMO_MODEL), *PORTS]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=file)
        try:
            while "Ctrl-C stops it" not in (said := log.read_text(errors="replace")):
                if process.poll() is not None:
                    raise SystemExit(said)
                time.sleep(0.1)
            yield process.pid, _address(said, r"gRPC +(\S+)"), _address(said, r"OpenAI +(http://\S+)/v1")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _address(said: str, pattern: str) -> str:
    match = re.search(pattern, said)
    assert match, said
    return match[1]


async def measured(pid: int, grpc: str, rest: str, chosen: argparse.Namespace) -> list[float]:
    """The memory in MiB at the beginning and after each tenth."""
    until = time.monotonic() + chosen.seconds
    found = []
    async with AsyncClient(grpc) as client, httpx.AsyncClient(base_url=rest, timeout=60) as uploads:
        load = Load(client, uploads, chosen.phrases, chosen.rest)
        for step in range(11):
            parts = memory_mib(pid)
            found.append(sum(parts.values()))
            said = ", ".join(f"{name} {size:.1f}" for name, size in sorted(parts.items()))
            print(f"{dict(load.sent)}: {found[-1]:.1f} MiB ({said})", flush=True)
            if step < 10:
                await load.send(chosen.requests // 10, until)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--phrases", type=int, default=10)
    options.add_argument("--rest", type=float, default=0.2)
    options.add_argument("--seconds", type=float, default=3600)
    chosen = options.parse_args()
    with serving() as (pid, grpc, rest):
        found = asyncio.run(measured(pid, grpc, rest, chosen))
    return int(found[-1] - found[2] > GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
