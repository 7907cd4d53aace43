#!/usr/bin/env python3
"""The memory of a service over many requests, each with hotwords of its own.

    scripts/hotwords-memory.py [--requests 100000] [--phrases 10]

tritonserver with the bundled model gets a tenth of a second of speech with each request, and ten phrases that no
request before had, 64 requests at a time. Ten times in between the proportional memory (PSS) of its processes is
printed. Ends with status 1 where the end is more than 16 MiB above a fifth of the way. Needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from contextlib import suppress
from pathlib import Path

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.client import AsyncClient
from moulin.demo.files import DEMO_MODEL, demo_speech
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.targets.triton import served

AT_ONCE = 64
GROWTH_MIB = 16
WORDS = (
    *("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "OH"),
    *("FOX", "GHOST", "VOTE", "EXIT"),
)


def phrases(chosen: random.Random, count: int) -> list[str]:
    """Four words each, of 50,000 such phrases: lists of ten do not repeat."""
    return [" ".join(chosen.choices(WORDS, k=4)) for _ in range(count)]


async def send(client: AsyncClient, speech: Floats, chosen: random.Random, count: int, size: int) -> None:
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            await client.transcribe(speech, hotwords=phrases(chosen, size))

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


def memory_mib(root: int) -> float:
    """The proportional memory of a process and all below it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        with suppress(OSError):
            found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 1024


async def measured(url: str, pid: int, requests: int, size: int) -> list[float]:
    chosen, speech = random.Random(0), demo_speech()[0][8000:9600]
    found = []
    async with AsyncClient(url) as client:
        for step in range(11):
            found.append(memory_mib(pid))
            print(f"{step * requests // 10:8,} requests {found[-1]:8.1f} MiB", flush=True)
            if step < 10:
                await send(client, speech, chosen, requests // 10, size)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--phrases", type=int, default=10)
    chosen = options.parse_args()
    with served(load_bundle(DEMO_MODEL), ServerSettings()) as server:
        assert server.pid is not None
        found = asyncio.run(measured(server.grpc_url, server.pid, chosen.requests, chosen.phrases))
    return int(found[-1] - found[2] > GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
