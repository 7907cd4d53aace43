#!/usr/bin/env python3
"""Replaces every process of a small cluster under live streams and uploads, kills one, stops one, and looks for words.

    scripts/rolling.py [--streams 30] [--uploads 2] [--servers 3] [--pause-sec 2.0] [--stop-pause-sec 4.0]
                       [--settle-sec 6] [--seed 1] [--to report.json]

The cluster: `moulin serve --no-gateway` on 127.0.0.2, 127.0.0.3, …, and two `moulin gateway` in front of all of them.
The load: live streams at the pace of speech, each of several recordings with pauses between them, and uploads one
after another. Clients take the other gateway where one cannot be connected to, as behind a Kubernetes service.
What happens: each server and each gateway is told to stop and started again; then a server is killed, a server is
stopped with SIGSTOP as a partition would, and a gateway is killed.

Ends with status 1 where a request failed that was not the killed gateway's own; where the text of a stream that did not
move, or of an upload, is not that of an undisturbed run; where a moved stream's times or numbers go back; where moved
streams have more word errors than undisturbed ones and one a move in sum, or one stream three a move; or where a stream
paused for longer than `--pause-sec` around the kill or `--stop-pause-sec` around the stop. A pause is the time from a
chunk of audio to the answer to a ping behind it.
Needs the extras `serve` and `test`. Takes about three minutes. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import websockets

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.waveform import SAMPLE_RATE, in_16_bits
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import count_word_errors, digits_spelled_alike
from moulin.launch.ports import claim_ports
from moulin.live_transcript import LiveTranscript
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer

MOULIN = str(Path(sys.executable).with_name("moulin"))
CHUNK = 5120
SILENCE_SEC = 1.6
DRAIN_SEC = {"serve": 5, "gateway": 40}
"""A server's streams move when its time is over; a gateway's end before."""
START_SEC = 90.0
ANSWER_SEC = 60.0
STOPPED_SEC = 8.0
MOST_ERRORS_A_MOVE = 3
"""Of one stream. What was left out or said twice would be more; one word more or less is how a model begins anew."""


# ------------------------------------------------------------------------------------------------------------ processes


@dataclass
class Member:
    """A process of the cluster, one after another on the same addresses."""

    name: str
    verb: str
    arguments: list[str]
    ready_url: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _mark(self) -> str:
        """In the environment of all of its processes."""
        return f"MOULIN_ROLLING={self.folder.name}-{self.name}"

    def start(self) -> None:
        name, _, value = self._mark.partition("=")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [MOULIN, self.verb, *self.arguments, "--drain-sec", str(DRAIN_SEC[self.verb])],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, name: value},
            )

    async def ready(self) -> None:
        until = time.monotonic() + START_SEC
        async with httpx.AsyncClient() as client:
            while time.monotonic() < until:
                assert self.process is not None
                if self.process.poll() is not None:
                    break
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(self.ready_url, timeout=2)).status_code == 200:
                        return
                await asyncio.sleep(0.2)
        raise SystemExit(f"{self.name} does not start\n{self.log.read_text(errors='replace')[-3000:]}")

    async def ended(self) -> float:
        """Wait until it has ended; the seconds that it took."""
        began = time.monotonic()
        while self.process is not None and self.process.poll() is None:
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    def signal_all(self, number: signal.Signals) -> None:
        """Signal all of its processes, those that it has started among them."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), number)


@contextmanager
def cluster(folder: Path, servers: int) -> Iterator[tuple[list[Member], list[Member]]]:
    """Servers and gateways, none of them started."""
    wanted = {f"--{name}-port": 0 for name in ("http", "grpc", "metrics")}
    made, addresses = [], []
    for number in range(servers):
        host = f"127.0.0.{number + 2}"
        ports = claim_ports(host, wanted)
        arguments = [
            "--host",
            host,
            "--no-gateway",
            *(text for flag, port in ports.items() for text in (flag, str(port))),
        ]
        addresses += ["--triton", f"{host}:{ports['--grpc-port']}"]
        url = f"http://{host}:{ports['--http-port']}/v2/health/ready"
        made.append(Member(f"server-{number + 1}", "serve", arguments, url, folder))
    gateways = []
    for number in range(2):
        port = claim_ports("127.0.0.1", {"--port": 0})["--port"]
        arguments = ["--port", str(port), "--log-format", "json", *addresses]
        url = f"http://127.0.0.1:{port}/readyz"
        gateways.append(Member(f"gateway-{number + 1}", "gateway", arguments, url, folder))
    try:
        yield made, gateways
    finally:
        for member in (*gateways, *made):
            member.signal_all(signal.SIGCONT)
            member.signal_all(signal.SIGKILL)
            if member.process is not None:
                member.process.wait()


# ----------------------------------------------------------------------------------------------------------------- load


@dataclass(frozen=True)
class Speech:
    """What a stream says, and what an undisturbed one hears."""

    samples: Floats
    said: str
    heard: str


@dataclass
class Heard:
    """What became of a stream."""

    speech: Speech
    gateway: str
    request_id: str
    began: float
    finals: list[dict[str, Any]] = field(default_factory=list)
    pongs: list[tuple[float, float]] = field(default_factory=list)
    """When each chunk was sent, and the time until the answer behind it."""
    text: str | None = None
    failure: str | None = None


def speeches(chosen: random.Random, of_each: int, count: int = 12) -> list[Speech]:
    """Some, of so many recordings each."""
    clips = [(read_audio(clip.audio), clip.text) for clip in demo_clips()]
    pause = np.zeros(round(SILENCE_SEC * SAMPLE_RATE), np.float32)
    found = []
    with open_stream_recognizer(DEMO_STREAMING_MODEL) as recognizer:
        for _ in range(count):
            taken = chosen.sample(clips, of_each)
            samples = np.concatenate([part for waveform, _ in taken for part in (waveform, pause)])
            stream, live = recognizer.open(), LiveTranscript()
            recognizer.accept(stream, in_16_bits(samples).astype(np.float32) / 32768)
            recognizer.finish(stream)
            live.apply(recognizer.advance(stream))
            recognizer.close(stream)
            found.append(Speech(samples, " ".join(text for _, text in taken), live.transcript().text))
    return found


class Load:
    """Clients, each of which does one thing again and again until it is told to stop."""

    def __init__(
        self, gateways: list[Member], found: list[Speech], uploads: list[tuple[bytes, str]], seed: int
    ) -> None:
        self._gateways, self._speeches, self._uploads = gateways, found, uploads
        self._chosen = random.Random(seed)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.streams: list[Heard] = []
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def start(self, streams: int, uploads: int) -> None:
        for number in range(streams):
            self._tasks.append(asyncio.create_task(self._again(self._stream, number / streams * 6.0)))
        for _ in range(uploads):
            self._tasks.append(asyncio.create_task(self._again(self._upload, 0.0)))

    async def stop(self) -> None:
        """Let each finish what it does."""
        self._stopping.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks), 180)

    async def _again(self, what: Callable[[], Awaitable[None]], after_sec: float) -> None:
        await asyncio.sleep(after_sec)
        while not self._stopping.is_set():
            await what()

    def _order(self) -> list[Member]:
        return self._chosen.sample(self._gateways, len(self._gateways))

    async def _stream(self) -> None:
        speech, request_id = self._chosen.choice(self._speeches), uuid.uuid4().hex
        for gateway in self._order():
            port = gateway.arguments[1]
            url = f"ws://127.0.0.1:{port}/v1/stream?model=transducer_streaming"
            try:
                connection = await websockets.connect(
                    url, additional_headers={"x-request-id": request_id}, open_timeout=5, max_size=None
                )
            except (OSError, websockets.InvalidStatus, websockets.InvalidMessage, TimeoutError):
                self.outcomes["connected to the other gateway"] += 1
                continue
            heard = Heard(speech, gateway.name, request_id, time.monotonic())
            self.streams.append(heard)
            async with connection:
                await self._talk(connection, heard)
            return
        self.outcomes["no gateway"] += 1
        await asyncio.sleep(0.5)

    async def _talk(self, connection: Any, heard: Heard) -> None:
        sent: dict[int, float] = {}
        speaking = asyncio.create_task(_speak(connection, heard.speech.samples, sent))
        try:
            async with asyncio.timeout(len(heard.speech.samples) / SAMPLE_RATE + ANSWER_SEC):
                async for message in connection:
                    event = json.loads(message)
                    match event["type"]:
                        case "final":
                            heard.finals.append(event["segment"])
                        case "pong":
                            at = sent[event["id"]]
                            heard.pongs.append((at, time.monotonic() - at))
                        case "done":
                            heard.text = event["text"]
                            return
                        case "error":
                            heard.failure = str(message)[:300]
                            return
            heard.failure = f"closed before done: {connection.close_code} {connection.close_reason}"
        except (OSError, websockets.WebSocketException, TimeoutError) as error:
            heard.failure = repr(error)[:300]
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    async def _upload(self) -> None:
        content, right = self._chosen.choice(self._uploads)
        for gateway in self._order():
            try:
                async with httpx.AsyncClient(timeout=ANSWER_SEC) as client:
                    answer = await client.post(
                        f"http://127.0.0.1:{gateway.arguments[1]}/v1/audio/transcriptions",
                        files={"file": content},
                        data={"model": "whisper-1"},
                    )
            except httpx.ConnectError:
                self.outcomes["connected to the other gateway"] += 1
                continue
            except httpx.HTTPError as error:
                self._fail("upload", gateway, repr(error))
            else:
                if answer.status_code != 200:
                    self._fail("upload", gateway, answer.text[:300])
                elif answer.json()["text"] != right:
                    self._fail("upload", gateway, f"wrong: {answer.json()['text']!r} instead of {right!r}")
                else:
                    self.outcomes["uploads right"] += 1
            await asyncio.sleep(0.1)
            return
        self.outcomes["no gateway"] += 1
        await asyncio.sleep(0.5)

    def _fail(self, what: str, gateway: Member, why: str) -> None:
        self.failures.append(f"{time.monotonic():.1f} {what} by {gateway.name}: {why}")


async def _speak(connection: Any, samples: Floats, sent: dict[int, float]) -> None:
    """Send the samples at the pace of speech, and a ping behind each piece."""
    began = time.monotonic()
    with contextlib.suppress(websockets.ConnectionClosed):
        for number, begin in enumerate(range(0, len(samples), CHUNK)):
            await asyncio.sleep(max(0.0, began + begin / SAMPLE_RATE - time.monotonic()))
            sent[number] = time.monotonic()
            await connection.send(in_16_bits(samples[begin : begin + CHUNK]).tobytes())
            await connection.send(json.dumps({"type": "ping", "id": number}))
        await connection.send('{"type": "end"}')


# ------------------------------------------------------------------------------------------------------------- the days


@dataclass
class Happening:
    what: str
    at: float
    until: float
    detail: dict[str, float] = field(default_factory=dict)


class Story:
    """What is done to the cluster."""

    def __init__(self, servers: list[Member], gateways: list[Member], settle_sec: float) -> None:
        self._servers, self._gateways, self._settle_sec = servers, gateways, settle_sec
        self.happenings: list[Happening] = []

    async def run(self) -> None:
        for member in (*self._servers, *self._gateways):
            async with self._happening(f"replace {member.name}") as detail:
                assert member.process is not None
                member.process.send_signal(signal.SIGTERM)
                detail["ended_sec"] = round(await member.ended(), 1)
                member.start()
                await member.ready()
        async with self._happening(f"kill {self._servers[0].name}"):
            await self._killed(self._servers[0])
        async with self._happening(f"stop {self._servers[1].name}"):
            self._servers[1].signal_all(signal.SIGSTOP)
            await asyncio.sleep(STOPPED_SEC)
            await self._killed(self._servers[1])
        async with self._happening(f"kill {self._gateways[0].name}"):
            await self._killed(self._gateways[0])

    async def _killed(self, member: Member) -> None:
        member.signal_all(signal.SIGKILL)
        await member.ended()
        await asyncio.sleep(1.0)
        member.start()
        await member.ready()

    @asynccontextmanager
    async def _happening(self, what: str) -> AsyncIterator[dict[str, float]]:
        print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
        happening = Happening(what, time.monotonic(), 0.0)
        yield happening.detail
        await asyncio.sleep(self._settle_sec)
        happening.until = time.monotonic()
        self.happenings.append(happening)


def moves_by_id(gateways: list[Member]) -> dict[str, int]:
    """How often the stream of each request moved, from the gateways' logs."""
    found = {}
    for gateway in gateways:
        for line in gateway.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("moves"):
                    found[entry["request_id"]] = entry["moves"]
    return found


def judge(load: Load, story: Story, gateways: list[Member], options: argparse.Namespace) -> dict[str, Any]:
    """The report; `faults` is empty where all is well."""
    moves, faults = moves_by_id(gateways), list(load.failures)
    killed = next(each for each in story.happenings if each.what.startswith("kill gateway"))
    counts: Counter[str] = Counter(load.outcomes)
    faults += [f"{counts['no gateway']} times no gateway could be connected to"] if counts["no gateway"] else []
    own, undisturbed, moved_errors = [], 0, 0
    for fault in load.failures:  # of the killed gateway's own connections
        at, _, rest = fault.partition(" ")
        if killed.at - 1 <= float(at) <= killed.until and f"by {killed.what.removeprefix('kill ')}" in rest:
            own.append(fault)
    for heard in load.streams:
        moved = moves.get(heard.request_id, 0)
        if heard.failure is not None:
            ends = heard.pongs[-1][0] if heard.pongs else heard.began
            if heard.gateway == killed.what.removeprefix("kill ") and killed.at - 2 <= ends <= killed.until:
                counts["streams of the killed gateway"] += 1
            else:
                faults.append(f"stream by {heard.gateway}, moved {moved} times: {heard.failure}")
            continue
        counts["streams moved" if moved else "streams that did not move"] += 1
        counts["moves"] += moved
        faults += wrong(heard, moved)
        if moved:
            undisturbed += errors(heard.speech.said, heard.speech.heard)
            moved_errors += errors(heard.speech.said, heard.text or "")
    if moved_errors > undisturbed + counts["moves"]:
        faults.append(f"moved streams: {moved_errors} word errors, undisturbed {undisturbed}, {counts['moves']} moves")
    longest = {each.what: longest_pause(load, each) for each in story.happenings}
    pauses = {what: pause for what, (pause, _) in longest.items()}
    limits = {"kill server": options.pause_sec, "stop server": options.stop_pause_sec}
    for what, pause in pauses.items():
        for begins, limit in limits.items():
            if what.startswith(begins) and pause > limit:
                faults.append(f"{what}: a pause of {pause} s")
    return {
        "streams": options.streams,
        "uploads": options.uploads,
        "counts": dict(sorted(counts.items())),
        "word errors of moved streams": {"undisturbed": undisturbed, "moved": moved_errors},
        "longest pause sec": pauses,
        "which began after sec": {what: after for what, (_, after) in longest.items()},
        "ended after sec": {each.what: each.detail["ended_sec"] for each in story.happenings if each.detail},
        "load average": [round(number, 1) for number in os.getloadavg()],
        "faults": [fault for fault in faults if fault not in own],
    }


def wrong(heard: Heard, moved: int) -> list[str]:
    """What is wrong with a stream that came to its end."""
    about, found = f"stream by {heard.gateway}, moved {moved} times", []
    last_sec = 0.0
    for number, segment in enumerate(heard.finals):
        if segment["number"] != number or segment["start_sec"] < last_sec:
            found.append(f"{about}: segment {number} is {segment}")
        last_sec = segment["end_sec"]
    if heard.text != " ".join(segment["text"] for segment in heard.finals):
        found.append(f"{about}: the final segments are not the text {heard.text!r}")
    said, right = heard.speech.said, heard.speech.heard
    if not moved and heard.text != right:
        found.append(f"{about}: {heard.text!r} instead of {right!r}")
    if moved and errors(said, heard.text or "") > errors(said, right) + MOST_ERRORS_A_MOVE * moved:
        found.append(f"{about}: {heard.text!r} instead of {right!r}")
    return found


def errors(said: str, heard: str) -> int:
    return count_word_errors(said, heard, normalize=digits_spelled_alike).errors


def longest_pause(load: Load, happening: Happening) -> tuple[float, float]:
    """The pause, and when after the happening its chunk was sent."""
    pauses = [
        (sec, at - happening.at)
        for heard in load.streams
        for at, sec in heard.pongs
        if happening.at - 1.0 <= at < happening.until - 1.0  # the last second is the next one's
    ]
    pause, after = max(pauses, default=(0.0, 0.0))
    return round(pause, 2), round(after, 2)


async def roll(options: argparse.Namespace) -> dict[str, Any]:
    chosen = random.Random(options.seed)
    found = speeches(chosen, options.clips)
    with open_recognizer(DEMO_MODEL) as recognizer:
        uploads = [
            (clip.audio.read_bytes(), recognizer.transcribe([read_audio(clip.audio)])[0].text) for clip in demo_clips()
        ]
    with tempfile.TemporaryDirectory(prefix="rolling-") as folder, cluster(Path(folder), options.servers) as members:
        servers, gateways = members
        for member in servers:
            member.start()
        for member in servers:
            await member.ready()
        for member in gateways:
            member.start()
        for member in gateways:
            await member.ready()
        load, story = Load(gateways, found, uploads, options.seed), Story(servers, gateways, options.settle_sec)
        load.start(options.streams, options.uploads)
        await asyncio.sleep(options.settle_sec)
        began = time.monotonic()
        await story.run()
        await load.stop()
        await asyncio.sleep(0.5)  # the last lines of the log
        report = judge(load, story, gateways, options)
        return {"seconds": round(time.monotonic() - began, 1), **report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=30, help="live streams at once")
    parser.add_argument("--uploads", type=int, default=2, help="uploads at once")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--clips", type=int, default=2, help="recordings in a stream; each is some eight seconds")
    parser.add_argument("--pause-sec", type=float, default=2.0, help="more on a machine with other work")
    parser.add_argument("--stop-pause-sec", type=float, default=4.0)
    parser.add_argument("--settle-sec", type=float, default=6.0, help="from one happening to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", type=Path, help="a file for the report too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left
    report = asyncio.run(roll(options))
    text = json.dumps(report, indent=1)
    print(text)
    if options.to is not None:
        options.to.write_text(text + "\n")
    sys.exit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
