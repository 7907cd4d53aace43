"""Recordings decoded in processes of their own: the same pieces, and ends of every kind that touch nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.decode import audio_blocks, read_audio
from moulin.audio.selection import Selection
from moulin.errors import AudioError, AudioTooLong, ServerUnavailable
from moulin.evaluate.manifest import demo_clips
from moulin.isolated_decoding.messages import DecodingLimits
from moulin.isolated_decoding.processes import DecodingProcesses
from moulin.long_audio.cutter import Piece, Place
from moulin.long_audio.pieces import Pieces

Use = Callable[[DecodingProcesses], Awaitable[None]]


def run(use: Use, limits: DecodingLimits | None = None) -> None:
    async def whole() -> None:
        processes = DecodingProcesses(limits)
        try:
            await use(processes)
        finally:
            await processes.close()

    asyncio.run(whole())


async def pieces_of(
    processes: DecodingProcesses, path: Path, *, max_audio_sec: float = 3600.0, max_utterance_sec: float | None = 30.0
) -> list[Piece]:
    with path.open("rb") as file:
        wanted = {"max_audio_sec": max_audio_sec, "max_utterance_sec": max_utterance_sec}
        async with processes.decoding(file.fileno(), path.name, **wanted) as decoding:  # type: ignore[arg-type]
            return [piece async for piece in decoding]


def written(path: Path, samples: Floats | NDArray[np.int16], rate: int = 16_000, kind: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, kind, format=path.suffix[1:])
    return path


@pytest.fixture
def long_recording(tmp_path: Path) -> Path:
    gap = np.zeros(24_000, np.float32)
    return written(tmp_path / "long.wav", np.concatenate([np.append(read_audio(c.audio), gap) for c in demo_clips()]))


def test_the_pieces_are_those_of_this_process(long_recording: Path) -> None:
    expected = list(Pieces(audio_blocks(long_recording), max_utterance_sec=30))

    async def use(processes: DecodingProcesses) -> None:
        pieces = await pieces_of(processes, long_recording)
        assert len(pieces) == len(expected) > 3
        for piece, other in zip(pieces, expected, strict=True):
            assert piece.start_samples == other.start_samples
            np.testing.assert_array_equal(piece.waveform, other.waveform)

    run(use)


def test_all_audio_in_blocks_for_who_cuts_it_himself(long_recording: Path) -> None:
    async def use(processes: DecodingProcesses) -> None:
        blocks = await pieces_of(processes, long_recording, max_utterance_sec=None)
        assert len(blocks) > 50
        np.testing.assert_array_equal(np.concatenate([b.waveform for b in blocks]), read_audio(long_recording))
        starts = np.cumsum([0, *(len(b.waveform) for b in blocks[:-1])])
        assert [block.start_samples for block in blocks] == starts.tolist()

    run(use)


def test_channels_and_warnings(tmp_path: Path) -> None:
    """Each channel by itself, of a recording that is cut short."""
    one, other = (read_audio(clip.audio)[:40_000] for clip in demo_clips()[:2])
    path = written(tmp_path / "call.wav", np.stack([one, other], axis=1))
    path.write_bytes(path.read_bytes()[:-8000])

    async def use(processes: DecodingProcesses) -> None:
        with path.open("rb") as file:
            async with processes.decoding(
                file.fileno(), "call.wav", Selection("each"), max_audio_sec=60, max_utterance_sec=30
            ) as decoding:
                pieces = [piece async for piece in decoding]
        assert [piece.place for piece in pieces] == [Place(1, None), Place(2, None)]
        for piece, whole in zip(pieces, (one, other), strict=True):
            np.testing.assert_allclose(piece.waveform, whole[:38_000], atol=1e-4)
        (warning,) = decoding.warnings
        assert "cut short" in warning

    run(use)


def test_many_at_once() -> None:
    paths = [Path(clip.audio) for clip in demo_clips()] * 2

    async def use(processes: DecodingProcesses) -> None:
        found = await asyncio.gather(*(pieces_of(processes, path) for path in paths))
        for path, pieces in zip(paths, found, strict=True):
            np.testing.assert_array_equal(pieces[0].waveform, read_audio(path))

    run(use)


@pytest.mark.parametrize(
    "content", [b"", b"not audio at all", b"RIFF\xff\xff\xff\xffWAVE"], ids=["empty", "text", "cut"]
)
def test_a_faulty_file_gets_the_decoders_own_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "faulty.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError) as expected:
        read_audio(path, name="faulty.wav")

    async def use(processes: DecodingProcesses) -> None:
        with pytest.raises(AudioError) as error:
            await pieces_of(processes, path)
        assert str(error.value) == str(expected.value)

    run(use)


def test_too_long(tmp_path: Path) -> None:
    path = written(tmp_path / "silence.flac", np.zeros(5 * 16_000, np.float32))

    async def use(processes: DecodingProcesses) -> None:
        with pytest.raises(AudioTooLong, match=r"silence\.flac is too long: expected at most 4 s"):
            await pieces_of(processes, path, max_audio_sec=4)

    run(use)


def test_what_needs_too_much_cpu_time_is_stopped(tmp_path: Path) -> None:
    """Four hours of silence in 47 kB, of which no piece comes."""
    path = written(tmp_path / "hours.flac", np.zeros(4 * 3600 * 1000, np.float32), rate=1000)

    async def use(processes: DecodingProcesses) -> None:
        with pytest.raises(AudioError, match=r"hours\.flac cannot be decoded: the decoder needed more than 1 s of CPU"):
            await pieces_of(processes, path, max_audio_sec=20_000)

    run(use, DecodingLimits(cpu_sec=1))


def test_what_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    """A block of 4,096 frames of 1,024 channels is 16 MiB."""
    path = written(tmp_path / "wide.wav", np.zeros((8192, 1024), np.float32))

    async def use(processes: DecodingProcesses) -> None:
        with pytest.raises(AudioError, match=r"wide\.wav cannot be decoded"):
            await pieces_of(processes, path)

    run(use, DecodingLimits(memory_bytes=8 << 20))


def test_who_leaves_ends_the_work(tmp_path: Path) -> None:
    path = written(tmp_path / "hours.flac", np.zeros(4 * 3600 * 1000, np.float32), rate=1000)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        server = processes._server._process.pid
        for _ in range(4):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await pieces_of(processes, path, max_audio_sec=20_000)
        deadline = time.monotonic() + 60
        while children(server):
            assert time.monotonic() < deadline, "decoding goes on"
            await asyncio.sleep(0.01)

    run(use)


@pytest.mark.parametrize("signal_number", [9, 11], ids=["killed", "crashed"])
def test_a_crash_is_one_recordings_own(tmp_path: Path, signal_number: int) -> None:
    hours = written(tmp_path / "hours.flac", np.zeros(4 * 3600 * 1000, np.float32), rate=1000)
    clip = Path(demo_clips()[0].audio)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        server = processes._server._process.pid
        doomed = asyncio.create_task(pieces_of(processes, hours, max_audio_sec=20_000))
        process = await at_work(server)
        beside = asyncio.create_task(pieces_of(processes, clip))
        await asyncio.sleep(0)
        os.kill(process, signal_number)
        with pytest.raises(AudioError, match=r"the decoder was killed|the decoder crashed on it \(SIGSEGV\)"):
            await doomed
        assert len(await beside) == 1
        assert len(await pieces_of(processes, clip)) == 1

    run(use)


def test_the_server_is_started_again(tmp_path: Path) -> None:
    hours = written(tmp_path / "hours.flac", np.zeros(4 * 3600 * 1000, np.float32), rate=1000)
    clip = Path(demo_clips()[0].audio)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        server = processes._server._process
        lost = asyncio.create_task(pieces_of(processes, hours, max_audio_sec=20_000))
        running = await at_work(server.pid)
        server.kill()
        with pytest.raises(ServerUnavailable, match=r"hours\.flac was not decoded"):
            await lost
        assert len(await pieces_of(processes, clip)) == 1
        assert not runs(running), "a process outlives its server"

    run(use)


def test_a_stopped_server_is_started_again() -> None:
    clip = Path(demo_clips()[0].audio)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        stopped = processes._server._process.pid
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(ServerUnavailable, match=r"was not decoded.*"):
            await pieces_of(processes, clip)
        assert len(await pieces_of(processes, clip)) == 1
        assert processes._server._process.pid != stopped

    run(use)


def test_a_server_that_is_looked_at_stays() -> None:
    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        server = processes._server
        assert server is not None
        for _ in range(3):
            server._answered = False
            async with asyncio.timeout(60):
                while not server._answered:
                    await asyncio.sleep(0.05)
        assert not server.has_ended

    run(use)


def test_who_leaves_while_the_server_starts_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[asyncio.Future[Any]] = []
    to_thread = asyncio.to_thread

    def noted(function: Callable[..., Any], *args: Any, **how: Any) -> Awaitable[Any]:
        if function is subprocess.Popen:
            servers.append(asyncio.ensure_future(to_thread(function, *args, **how)))
            return servers[-1]
        return to_thread(function, *args, **how)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    clip = Path(demo_clips()[0].audio)
    faults: list[dict[str, Any]] = []

    async def use(processes: DecodingProcesses) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        first, second = (asyncio.create_task(pieces_of(processes, clip)) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        assert len(await second) == 1
        assert len(await pieces_of(processes, clip)) == 1
        assert len(servers) == 1

    run(use)
    assert not faults


def test_a_process_takes_one_recording_after_another() -> None:
    """Which saves a fork; a hundred are enough for one."""
    clip = Path(demo_clips()[0].audio)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        server, seen = processes._server._process.pid, set[int]()
        for _ in range(120):
            assert len(await pieces_of(processes, clip)) == 1
            seen.update(children(server))
        assert len(seen) == 2

    run(use)


def test_no_more_processes_stay_than_there_are_cores() -> None:
    """After many at once, some of whose callers have left."""
    clips = [Path(clip.audio) for clip in demo_clips()]

    async def leaves(processes: DecodingProcesses, clip: Path, after_sec: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_sec):
                await pieces_of(processes, clip)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        server = processes._server._process.pid
        for _ in range(3):
            await asyncio.gather(*(pieces_of(processes, clip) for clip in clips))
            await asyncio.gather(*(leaves(processes, clip, n / 500) for n, clip in enumerate(clips)))
        most, deadline = len(os.sched_getaffinity(0)), time.monotonic() + 60
        while len(children(server)) > most:
            assert time.monotonic() < deadline, f"{len(children(server))} processes stay"
            await asyncio.sleep(0.01)

    run(use)


class Busy:
    """A socket whose buffer is full once for each message."""

    def __init__(self, real: socket.socket) -> None:
        self._real, self._refused = real, set[bytes]()

    def send(self, data: bytes) -> int:
        if data not in self._refused:
            self._refused.add(data)
            raise BlockingIOError
        return self._real.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_server_that_is_busy_hears_of_the_end_later(tmp_path: Path) -> None:
    hours = written(tmp_path / "hours.flac", np.zeros(4 * 3600 * 1000, np.float32), rate=1000)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        server = processes._server
        server._control = Busy(server._control)  # type: ignore[assignment]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pieces_of(processes, hours, max_audio_sec=20_000)
        deadline = time.monotonic() + 60
        while children(server._process.pid):
            assert time.monotonic() < deadline, "decoding goes on"
            await asyncio.sleep(0.01)

    run(use)


def test_no_process_is_left_for_another_recording() -> None:
    """A limit of the machine: that recording fails, and the next one is decoded."""
    clip = Path(demo_clips()[0].audio)

    async def use(processes: DecodingProcesses) -> None:
        await processes.start()
        assert processes._server is not None
        pid = processes._server._process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
        third_free = [number for number in range(len(used) + 3) if number not in used][2]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (third_free, usual[1]))  # enough for an order, not for a fork
        with pytest.raises(ServerUnavailable, match="was not decoded"):
            await pieces_of(processes, clip)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        assert len(await pieces_of(processes, clip)) == 1
        assert processes._server._process.pid == pid

    run(use)


def test_a_recording_that_has_gone_from_its_folder(tmp_path: Path) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.zeros(1600, np.float32), 16_000, format="WAV")
    path = tmp_path / "gone.wav"
    path.write_bytes(content.getvalue())

    async def use(processes: DecodingProcesses) -> None:
        with path.open("rb") as file:
            path.unlink()
            async with processes.decoding(
                file.fileno(), "gone.wav", max_audio_sec=10, max_utterance_sec=30
            ) as decoding:
                pieces = [piece async for piece in decoding]
        assert decoding.decoded_sec == pytest.approx(0.1)
        assert len(pieces[0].waveform) == 1600

    run(use)


def children(process: int) -> list[int]:
    """Its children that still run."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [child for child in map(int, listed) if runs(child)]


async def at_work(server: int) -> int:
    """The server's only child, once it has begun."""
    while True:
        for process in children(server):
            used = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            if int(used[11]) + int(used[12]) > 5:
                return process
        await asyncio.sleep(0.01)


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_long_recording_gives_way_to_short_ones(tmp_path: Path) -> None:
    """Its process has the lowest priority after a quarter of a second of work, and takes no other recording."""
    noise = np.random.default_rng(0).integers(-6, 7, (48_000 * 200, 8)).astype(np.int16)  # silence decodes too fast
    minutes = written(tmp_path / "minutes.flac", noise, rate=48_000)
    clip = written(tmp_path / "clip.wav", np.zeros(16_000, np.float32))

    async def use(processes: DecodingProcesses) -> None:
        await pieces_of(processes, clip)
        assert niceness_of_workers() == [10]
        with minutes.open("rb") as file:
            wanted = {"max_audio_sec": 3600.0, "max_utterance_sec": None}
            async with processes.decoding(file.fileno(), "minutes", **wanted) as decoding:  # type: ignore[arg-type]
                async for _ in decoding:
                    if decoding.decoded_sec > 150:
                        assert niceness_of_workers() == [19]
        await pieces_of(processes, clip)
        assert 10 in niceness_of_workers()

    run(use)


def niceness_of_workers() -> list[int]:
    """Of the processes that the fork server of this process has forked."""
    found = []
    listed = [task.read_text().split() for task in Path("/proc/self/task").glob("*/children")]
    for server in {int(child) for task in listed for child in task}:
        if b"moulin.isolated_decoding" in Path(f"/proc/{server}/cmdline").read_bytes():  # others: Triton
            found += [os.getpriority(os.PRIO_PROCESS, worker) for worker in children(server)]
    return found
