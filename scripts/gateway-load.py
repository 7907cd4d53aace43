#!/usr/bin/env python3
"""Loads of a whole service, started for the purpose on free ports: what docs/gateway.md says comes from here.

    scripts/gateway-load.py long [HOURS]               a recording of hours: time, memory, words
    scripts/gateway-load.py many [UPLOADS [STREAMS]]   uploads at once beside live streams in real time
    scripts/gateway-load.py outage [SECONDS]           Triton is killed under load, and comes back

Needs the extras `serve` and `test`. Prints JSON.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import websockets

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import align_words, count_word_errors, digits_spelled_alike
from moulin.launch.gateway import GatewayProcess
from moulin.launch.ports import claim_ports
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.triton_repo.contract import STREAMING_MODEL_NAME
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions

TRANSCRIPTIONS = "/v1/audio/transcriptions"
RATE = 16000


@dataclass
class Service:
    """Triton and a gateway, as `moulin serve` starts them."""

    repository: Path
    options: ServerOptions
    address: str
    gateway: GatewayProcess
    triton: TritonServer

    def peak_memory_mb(self) -> float:
        """The most that the gateway has ever had resident."""
        status = Path(f"/proc/{self.gateway.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


@contextmanager
def service() -> Iterator[Service]:
    ports = claim_ports("127.0.0.1", {"http": 0, "grpc": 0, "metrics": 0, "gateway": 0})
    options = ServerOptions(ports["http"], ports["grpc"], ports["metrics"])
    address = f"127.0.0.1:{ports['gateway']}"
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        build_offline_repository(load_bundle(DEMO_MODEL), repository, OfflineOptions(), link=True)
        build_streaming_repository(
            load_bundle(DEMO_STREAMING_MODEL), repository, StreamingOptions(STREAMING_MODEL_NAME), link=True
        )
        with TritonServer(repository, options) as triton:
            triton.wait_ready()
            arguments = ["--triton", triton.grpc_url, "--port", str(ports["gateway"]), "--quiet"]
            with GatewayProcess(arguments, address=address) as gateway:
                yield Service(repository, options, address, gateway, triton)
                triton.stop()


def long(hours: float = 3.0) -> dict[str, Any]:
    """Clips in random order with silences of 0.8 to 6 s, as one WAV, against the same clips one by one."""
    clips = list(demo_clips())
    waveforms = [read_audio(clip.audio) for clip in clips]
    chance = random.Random(1)
    order: list[int] = []
    ends: list[float] = []
    with service() as running, tempfile.NamedTemporaryFile(suffix=".wav") as file:
        with soundfile.SoundFile(file.name, "w", RATE, 1) as sound:
            while sound.tell() < hours * 3600 * RATE:
                order.append(chance.randrange(len(clips)))
                sound.write(waveforms[order[-1]])
                ends.append(sound.tell() / RATE)
                sound.write(np.zeros(int(chance.uniform(0.8, 6.0) * RATE), np.float32))
            samples = sound.tell()
        with httpx.Client(base_url=f"http://{running.address}", timeout=3600) as client:
            alone = [[_words(client, _wav(waveform, delay)) for delay in DELAYS] for waveform in waveforms]
            began = time.monotonic()
            with Path(file.name).open("rb") as upload:
                words = _words(client, upload)
            seconds = time.monotonic() - began
        heard: list[list[str]] = [[] for _ in order]
        for word in words:
            # The last word of a clip may come a little after its end, and nothing is said for 0.8 s.
            at = int(np.searchsorted(np.array(ends) + 0.4, word["start"]))
            heard[min(at, len(order) - 1)].append(word["word"])
        return {
            "audio_sec": samples / RATE,
            "clips": len(order),
            "file_mb": Path(file.name).stat().st_size / 1e6,
            "seconds": round(seconds, 1),
            "gateway_peak_mb": round(running.peak_memory_mb(), 1),
            "long": _errors(" ".join(clips[each].text for each in order), " ".join(word["word"] for word in words)),
            "clip_by_clip": _errors(
                " ".join(clips[each].text for each in order), " ".join(_text(alone[each][0]) for each in order)
            ),
            "words": _compared(
                [clips[each].text for each in order],
                [" ".join(each) for each in heard],
                [[_text(words) for words in alone[each]] for each in order],
            ),
        }


DELAYS = range(0, RATE // 25, RATE // 400)
"""Samples of silence before a clip, up to one of the encoder's frames of 40 ms: what depends on them the model hears by
chance, wherever a recording is cut."""


def _words(client: httpx.Client, recording: Any) -> list[dict[str, Any]]:
    form = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
    answer = client.post(TRANSCRIPTIONS, files={"file": recording}, data=form)
    answer.raise_for_status()
    words: list[dict[str, Any]] = answer.json()["words"]
    return words


def _text(words: list[dict[str, Any]]) -> str:
    return " ".join(word["word"] for word in words)


def _wav(waveform: Any, delay: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([np.zeros(delay, np.float32), waveform]), RATE, format="WAV")
    return file.getvalue()


def _compared(said: list[str], heard: list[str], alone: list[list[str]]) -> dict[str, int]:
    """Words of clips that were heard right in the long recording or alone; `alone` has a text for each of DELAYS."""
    counts: Counter[str] = Counter(lost=0, lost_that_are_always_heard_alone=0, gained=0)
    for truth, text, texts in zip(said, heard, alone, strict=True):
        here, there = _right(truth, text), np.array([_right(truth, each) for each in texts])
        counts["lost"] += int((there[0] & ~here).sum())
        counts["lost_that_are_always_heard_alone"] += int((there.all(axis=0) & ~here).sum())
        counts["gained"] += int((here & ~there[0]).sum())
    return dict(counts)


def _right(said: str, heard: str) -> Any:
    """Of each word of `said`, whether it was heard: bool [W]."""
    pairs = align_words(said, heard, normalize=digits_spelled_alike)
    return np.array([expected == got for expected, got in pairs if expected is not None])


def _errors(said: str, heard: str) -> dict[str, Any]:
    errors = count_word_errors(said, heard, normalize=digits_spelled_alike)
    return {**asdict(errors), "rate": round(errors.rate, 4)}


def many(uploads: int = 200, streams: int = 64) -> dict[str, Any]:
    clips = list(demo_clips())
    waveforms = [(read_audio(clip.audio) * 32767).astype("<i2") for clip in clips]
    outcomes: Counter[str] = Counter()
    seconds: list[float] = []
    finals: list[float] = []

    async def upload(client: httpx.AsyncClient, number: int) -> None:
        began = time.monotonic()
        file = clips[number % len(clips)].audio
        answer = await client.post(TRANSCRIPTIONS, files={"file": file.read_bytes()}, data={"model": "whisper-1"})
        outcomes[f"upload {answer.status_code}"] += 1
        seconds.append(time.monotonic() - began)

    async def stream(address: str, number: int) -> None:
        samples = waveforms[number % len(waveforms)]
        async with websockets.connect(f"ws://{address}/v1/stream") as socket:
            ended = 0.0

            async def speak() -> None:
                nonlocal ended
                due = time.monotonic()
                for at in range(0, len(samples), RATE // 10):
                    await socket.send(samples[at : at + RATE // 10].tobytes())
                    due += 0.1
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                ended = time.monotonic()
                await socket.send(json.dumps({"type": "end"}))

            speaking = asyncio.create_task(speak())
            last: dict[str, Any] = {}
            async for message in socket:
                last = json.loads(message)
            await speaking
            outcomes[f"stream {last.get('type')}"] += 1
            finals.append(time.monotonic() - ended)

    async def counted(work: Awaitable[None], what: str) -> None:
        try:
            await work
        except Exception as error:
            outcomes[f"{what} {type(error).__name__}: {error}"] += 1

    async def everything(address: str) -> None:
        limits = httpx.Limits(max_connections=uploads)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=600, limits=limits) as client:
            await asyncio.gather(
                *(counted(upload(client, number), "upload") for number in range(uploads)),
                *(counted(stream(address, number), "stream") for number in range(streams)),
            )

    with service() as running:
        began = time.monotonic()
        asyncio.run(everything(running.address))
        return {
            "uploads": uploads,
            "streams": streams,
            "outcomes": dict(outcomes),
            "seconds": round(time.monotonic() - began, 1),
            "upload_p50_p95_sec": [round(value, 2) for value in np.percentile(seconds, [50, 95])],
            "stream_end_to_last_word_p50_p95_sec": [round(value, 2) for value in np.percentile(finals, [50, 95])],
            "gateway_peak_mb": round(running.peak_memory_mb(), 1),
        }


def outage(down_sec: float = 8.0, clients: int = 16) -> dict[str, Any]:
    clip = next(iter(demo_clips())).audio.read_bytes()
    answers: list[tuple[float, int]] = []

    async def ask(client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            answer = await client.post(TRANSCRIPTIONS, files={"file": clip}, data={"model": "whisper-1"})
            answers.append((time.monotonic(), answer.status_code))
            if answer.status_code != 200:
                await asyncio.sleep(0.2)

    async def run(running: Service) -> tuple[float, float]:
        stop = asyncio.Event()
        async with httpx.AsyncClient(base_url=f"http://{running.address}", timeout=60) as client:
            asking = [asyncio.create_task(ask(client, stop)) for _ in range(clients)]
            await asyncio.sleep(4)
            assert running.triton.pid is not None
            os.kill(running.triton.pid, signal.SIGKILL)
            killed = time.monotonic()
            await asyncio.to_thread(running.triton.wait)
            await asyncio.sleep(down_sec)
            running.triton = TritonServer(running.repository, running.options)
            await asyncio.to_thread(running.triton.start)
            await asyncio.to_thread(running.triton.wait_ready)
            back = time.monotonic()
            await asyncio.sleep(5)
            stop.set()
            await asyncio.gather(*asking)
        return killed, back

    with service() as running:
        killed, back = asyncio.run(run(running))
        running.triton.stop()
    served = [when for when, status in answers if status == 200 and when > killed + down_sec]
    return {
        "down_sec": round(back - killed, 1),
        "answers": dict(Counter(str(status) for _, status in answers)),
        "first_200_after_return_sec": round(min(served) - back, 2),
        "last_503_after_return_sec": round(max(when for when, status in answers if status == 503) - back, 2),
    }


LOADS: dict[str, Callable[..., dict[str, Any]]] = {"long": long, "many": many, "outage": outage}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in LOADS:
        sys.exit(__doc__)
    print(json.dumps(LOADS[sys.argv[1]](*map(float if sys.argv[1] == "long" else int, sys.argv[2:])), indent=2))
