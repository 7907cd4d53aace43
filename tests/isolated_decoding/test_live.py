"""Containers decoded as they come, each in a process of its own."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.errors import AudioError
from moulin.isolated_decoding.messages import DecodingLimits
from moulin.isolated_decoding.processes import Decoding, DecodingProcesses
from moulin.long_audio.cutter import Piece

NOISE = (0.1 * np.random.default_rng(3).standard_normal(48_000)).astype(np.float32)


def coded(form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, NOISE, 16_000, format=form, subtype=subtype)
    return file.getvalue()


def run(use: Callable[[DecodingProcesses], Awaitable[None]], limits: DecodingLimits | None = None) -> None:
    async def whole() -> None:
        processes = DecodingProcesses(limits)
        try:
            async with asyncio.timeout(60):
                await use(processes)
        finally:
            await processes.close()

    asyncio.run(whole())


def forks() -> set[int]:
    """The processes of the fork servers of this one."""
    found = set()
    for server in _children(os.getpid()):
        if b"fork_server" in Path(f"/proc/{server}/cmdline").read_bytes():
            found |= _children(server)
    return found


def _children(process: int) -> set[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


async def sent(feed: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(feed, data)


def joined(pieces: list[Piece]) -> Floats:
    return np.concatenate([piece.waveform for piece in pieces])


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16")])
def test_audio_comes_while_the_container_does(form: str, subtype: str) -> None:
    """Of FLAC, whose frames FFmpeg looks far ahead to find, not the first of it."""
    data = coded(form, subtype)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")

    async def use(processes: DecodingProcesses) -> None:
        async with processes.decoding_live("the audio") as (decoding, feed):
            half = len(data) // 2
            await sent(feed, data[:half])
            pieces = [await anext(decoding)] if form == "WAV" else []  # before the rest has come
            await sent(feed, data[half:])
            feed.shutdown(socket.SHUT_WR)
            pieces += [piece async for piece in decoding]
            np.testing.assert_allclose(joined(pieces), expected, atol=1e-4)
            assert decoding.decoded_sec == 3.0
            assert [piece.start_samples for piece in pieces] == list(
                np.cumsum([0, *(len(piece.waveform) for piece in pieces)])[:-1]
            )

    run(use)


def test_a_client_that_leaves_takes_its_process_with_it() -> None:
    async def use(processes: DecodingProcesses) -> None:
        async with processes.decoding_live("the audio") as (decoding, feed):
            await sent(feed, coded()[:20_000])
            await anext(decoding)
            assert len(forks()) == 1
        while forks():
            await asyncio.sleep(0.02)

    run(use)


def test_what_cannot_be_decoded_is_one_streams_fault() -> None:
    async def use(processes: DecodingProcesses) -> None:
        async with processes.decoding_live("the audio") as (other, feed):
            await sent(feed, coded()[:20_000])
            await anext(other)
            await _expect_error(processes, b"fLaC\0\0\0\x22" + bytes(5000), "the audio")
            await _expect_error(processes, b"RIFF\0\0\0\0WAVEnonsense" + bytes(100), "the audio|WAV")
            await sent(feed, coded()[20_000:])
            feed.shutdown(socket.SHUT_WR)
            await _to_the_end(other)
            assert other.decoded_sec == 3.0

    run(use)


async def _expect_error(processes: DecodingProcesses, data: bytes, message: str) -> None:
    async with processes.decoding_live("the audio") as (decoding, feed):
        await sent(feed, data)
        feed.shutdown(socket.SHUT_WR)
        with pytest.raises(AudioError, match=message):
            await anext(decoding)


def test_a_process_that_is_killed() -> None:
    async def use(processes: DecodingProcesses) -> None:
        async with processes.decoding_live("the audio") as (decoding, feed):
            await sent(feed, coded()[:20_000])
            await anext(decoding)
            (process,) = forks()
            os.kill(process, signal.SIGKILL)
            with pytest.raises(AudioError, match="was killed"):
                await _to_the_end(decoding)

    run(use)


async def _to_the_end(decoding: Decoding) -> None:
    async for _ in decoding:
        pass


def test_the_limit_of_cpu_time() -> None:
    """Of a stream that costs more than its audio is worth."""
    limits = DecodingLimits(first_cpu_sec=0.5, cpu_sec_a_sec=0.0)

    async def use(processes: DecodingProcesses) -> None:
        async with processes.decoding_live("the audio") as (decoding, feed):

            async def speak() -> None:
                header = coded()[:44]
                await sent(feed, header[:40] + b"\xff\xff\xff\xff")
                while True:
                    await sent(feed, bytes(1 << 16))

            speaking = asyncio.create_task(speak())
            with pytest.raises(AudioError, match="s of CPU time for"):
                await _to_the_end(decoding)
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    run(use, limits)
