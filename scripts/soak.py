#!/usr/bin/env python3
"""Kills, stops and starves the processes of `moulin serve` under load, and compares every text with the right one.

    scripts/soak.py [--minutes 10] [--every-sec 15] [--clients 2] [--streams 2] [--seed 1] [--recovery-sec 10]
                    [--to report.json]

The load: uploads to the gateway, requests to Triton, live streams to Triton and to the gateway, and clients that hang
up in the middle. What is served right without a disturbance, computed in this process, is the right text. After each
disturbance it is measured how long it takes until an upload and a stream are served right again.

Ends with status 1 where a text was wrong, a request got no answer at all, an error was not clear, or a recovery took
longer than `--recovery-sec`, of what is stopped and has to be found first six seconds longer.
Needs the extras `serve` and `test`. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import websockets

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.client import Client
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import ClientError
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import count_word_errors
from moulin.launch.liveness import SILENT_SEC
from moulin.live_transcript import LiveTranscript
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer

PORTS = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--gateway-port=0")
PATIENCE_SEC = 60.0
RECOVERY_SEC = 10.0
CHUNK = 4800
SHORT_STOP_SEC = (0.3, 1.9)
PAUSE_SEC = 3.0
STARVED_SEC = 8.0
MEMORY_EVERY_SEC = 10.0


@dataclass(frozen=True)
class Clip:
    content: bytes
    samples: Floats
    text: str
    live_text: str


@dataclass
class Tally:
    """What became of requests; for all threads."""

    outcomes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unlike: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of live streams through the gateway by the id of their request: how many words are not those of an undisturbed
    one, and the texts. The log has to tell whether they moved."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, way: str, outcome: str, example: str = "") -> None:
        with self.lock:
            self.outcomes[f"{way}: {outcome}"] += 1
            if outcome not in ("right", "hung up"):
                self.examples.setdefault(f"{way}: {outcome}", example[:300])

    def count_unlike(self, moves: dict[str, int]) -> None:
        """A stream that moved may have another word for each move: it is said again to a server that comes back, and
        what is heard anew, without what was before it, may be another word (docs/cluster.md)."""
        for request_id, (errors, example) in self.unlike.items():
            moved = moves.get(request_id, 0)
            outcome = "right but for a word a move" if errors <= moved else "wrong"
            self.count("socket", outcome, f"moved {moved} times: {example}")

    def number(self, *outcomes: str, ways: tuple[str, ...] = ()) -> int:
        return sum(
            count
            for name, count in self.outcomes.items()
            if name.partition(": ")[2] in outcomes and (not ways or name.partition(": ")[0] in ways)
        )


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen[bytes]
    log: Path
    cache: Path

    def find(self, pattern: str) -> str:
        match = re.search(pattern, self.log.read_text(errors="replace"))
        assert match, self.log.read_text(errors="replace")
        return match[1]

    @property
    def grpc(self) -> str:
        return self.find(r"gRPC +(\S+)")

    @property
    def gateway(self) -> str:
        return self.find(r"OpenAI +http://(\S+)/v1")

    def family(self) -> dict[int, str]:
        """All processes of the service by kind: those with our cache folder in their environment."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"XDG_CACHE_HOME={self.cache}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = _kind((process / "cmdline").read_bytes().split(b"\0"))
        return found


def _kind(arguments: list[bytes]) -> str:
    program = Path(arguments[0].decode(errors="replace")).name
    if program == "triton_python_backend_stub":
        return "stub"
    if program == "tritonserver":
        return "tritonserver"
    return next((verb for verb in ("gateway", "serve") if verb.encode() in arguments), "other")


def clips() -> list[Clip]:
    """The demo recordings with their right texts, computed here."""
    found = []
    with open_recognizer(DEMO_MODEL) as recognizer, open_stream_recognizer(DEMO_STREAMING_MODEL) as streams:
        for clip in demo_clips():
            samples = read_audio(clip.audio)
            stream = streams.open()
            streams.accept(stream, samples)
            streams.finish(stream)
            live = LiveTranscript()
            live.apply(streams.advance(stream))
            streams.close(stream)
            text = recognizer.transcribe([samples])[0].text
            found.append(Clip(clip.audio.read_bytes(), samples, text, live.transcript().text))
    return found


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    log, cache = folder / "log", folder / "cache"
    moulin = str(Path(sys.executable).with_name("moulin"))
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    with log.open("wb") as file:
        process = subprocess.Popen([moulin, "serve", *PORTS], stdin=subprocess.DEVNULL, stderr=file, env=environ)
    service = Service(process, log, cache)
    try:
        while "Ctrl-C stops it" not in log.read_text(errors="replace"):
            if process.poll() is not None:
                raise SystemExit(log.read_text(errors="replace"))
            time.sleep(0.1)
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def upload(service: Service, clip: Clip, tally: Tally, way: str = "upload") -> bool:
    """Whether the right text came."""
    try:
        answer = httpx.post(
            f"http://{service.gateway}/v1/audio/transcriptions",
            files={"file": clip.content},
            data={"model": "whisper-1"},
            timeout=PATIENCE_SEC,
        )
    except httpx.TimeoutException as error:
        tally.count(way, "no answer", repr(error))
        return False
    except httpx.TransportError as error:  # the gateway itself has gone
        tally.count(way, "cut off", repr(error))
        return False
    if answer.status_code != 200:
        clear = answer.status_code in (429, 503, 504) and "error" in answer.text
        tally.count(way, f"refused ({answer.status_code})" if clear else "unclear error", answer.text)
        return False
    return _judge(tally, way, answer.json()["text"], clip.text)


def request(service: Service, clip: Clip, tally: Tally) -> bool:
    try:
        with Client(service.grpc, timeout_sec=PATIENCE_SEC) as client:
            return _judge(tally, "request", client.transcribe(clip.samples).text, clip.text)
    except ClientError as error:
        return _refused(tally, "request", error)


def stream(service: Service, clip: Clip, tally: Tally, *, pause_sec: float = 0.0, way: str = "stream") -> bool:
    try:
        with Client(service.grpc, timeout_sec=PATIENCE_SEC) as client, client.stream() as live:
            for begin in range(0, len(clip.samples), CHUNK):
                live.send(clip.samples[begin : begin + CHUNK])
                time.sleep(pause_sec)
            return _judge(tally, way, live.finish().text, clip.live_text)
    except ClientError as error:
        return _refused(tally, way, error)


def socket(service: Service, clip: Clip, tally: Tally) -> bool:
    return asyncio.run(_socket(service, clip, tally))


async def _socket(service: Service, clip: Clip, tally: Tally) -> bool:
    address = f"ws://{service.gateway}/v1/stream?model=transducer_streaming&encoding=f32le"
    request_id = uuid.uuid4().hex
    connecting = websockets.connect(address, additional_headers={"x-request-id": request_id}, max_size=None)
    try:
        async with asyncio.timeout(PATIENCE_SEC), connecting as connection:
            await connection.send(np.asarray(clip.samples, np.float32).tobytes())
            await connection.send('{"type": "end"}')
            async for message in connection:
                event = json.loads(message)
                if event["type"] == "done":
                    if event["text"] == clip.live_text:
                        return _judge(tally, "socket", event["text"], clip.live_text)
                    errors = count_word_errors(clip.live_text, event["text"]).errors
                    tally.unlike[request_id] = errors, f"{event['text']!r} instead of {clip.live_text!r}"
                    return False
                if event["type"] == "error":
                    tally.count("socket", f"refused ({event['code']})", str(message))
                    return False
        tally.count("socket", "cut off", "closed without done")
    except TimeoutError as error:
        tally.count("socket", "no answer", repr(error))
    except (OSError, websockets.WebSocketException) as error:
        tally.count("socket", "cut off", repr(error))
    return False


def hang_up(service: Service, clip: Clip, tally: Tally) -> bool:
    """A client that goes in the middle of its answer."""
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(
            f"http://{service.gateway}/v1/audio/transcriptions",
            files={"file": clip.content},
            data={"model": "whisper-1"},
            timeout=0.05,
        )
    tally.count("hang up", "hung up")
    time.sleep(0.2)
    return True


def _judge(tally: Tally, way: str, text: str, right: str) -> bool:
    tally.count(way, "right" if text == right else "wrong", f"{text!r} instead of {right!r}")
    if text != right:
        print(f"{time.strftime('%H:%M:%S')} wrong: {way}: {text!r} instead of {right!r}", file=sys.stderr, flush=True)
    return text == right


def _refused(tally: Tally, way: str, error: ClientError) -> bool:
    timed_out = type(error).__name__ == "ServerTimeout"
    tally.count(way, "no answer" if timed_out else f"refused ({type(error).__name__})", str(error))
    return False


class Load:
    """Clients in threads, each of which does one thing again and again."""

    def __init__(self, service: Service, found: list[Clip], tally: Tally, seed: int) -> None:
        self._service, self._clips, self._tally, self._seed = service, found, tally, seed
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, count: int, what: Callable[[Service, Clip, Tally], bool]) -> None:
        for _ in range(count):
            chosen = random.Random(self._seed + len(self._threads))
            self._threads.append(threading.Thread(target=self._run, args=(what, chosen), daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_SEC)

    def _run(self, what: Callable[[Service, Clip, Tally], bool], chosen: random.Random) -> None:
        while not self._stopping.is_set():
            try:
                well = what(self._service, chosen.choice(self._clips), self._tally)
            except Exception as error:
                self._tally.count(what.__name__, "unclear error", repr(error))
                well = False
            self._stopping.wait(0.02 if well else 1.0)


def disturb(service: Service, chosen: random.Random) -> str:
    """Do something to a process, and say what."""
    kinds = {kind for kind in service.family().values() if kind in ("tritonserver", "stub", "gateway")}
    kind = chosen.choice(sorted(kinds))
    pid = chosen.choice([pid for pid, its in service.family().items() if its == kind])
    match how := chosen.choice(["kill", "kill", "stop", "stop shortly", "stop shortly", "pause", "starve"]):
        case "kill":
            _signal([pid], signal.SIGKILL)
        case "stop":
            _signal([pid], signal.SIGSTOP)
        case "stop shortly":
            _pause([pid], chosen.uniform(*SHORT_STOP_SEC))
        case "pause":
            _pause(list(service.family()), PAUSE_SEC)
            return "pause all"
        case _:
            return _starve()
    return f"{how} {kind}"


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _pause(pids: list[int], seconds: float) -> None:
    """As a container or a machine is paused where `pids` are all of them."""
    _signal(pids, signal.SIGSTOP)
    time.sleep(seconds)
    _signal(pids, signal.SIGCONT)


def _starve() -> str:
    """Several times as many busy processes as there are cores, for a while."""
    count = 4 * (os.cpu_count() or 1)
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(STARVED_SEC)
    for burner in burners:
        burner.kill()
        burner.wait()
    return "starve all"


def recovery_sec(service: Service, clip: Clip, since: float) -> float:
    """The time until an upload and a stream are served right; their failures are expected, and not counted."""
    quiet = Tally()
    while not (upload(service, clip, quiet) and stream(service, clip, quiet)):
        if time.monotonic() - since > 10 * PATIENCE_SEC:
            return float("inf")
        time.sleep(0.1)
    return time.monotonic() - since


def memory_mib(service: Service) -> dict[str, float]:
    """Proportional memory by kind of process."""
    totals: Counter[str] = Counter()
    for pid, kind in service.family().items():
        with contextlib.suppress(OSError, AttributeError, TypeError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            totals[kind] += int(re.search(r"^Pss: +(\d+)", text, re.M)[1])  # type: ignore[index]
    return {kind: round(kib / 1024, 1) for kind, kib in sorted(totals.items())}


def soak(options: argparse.Namespace) -> dict[str, Any]:
    chosen, tally = random.Random(options.seed), Tally()
    found = clips()
    disturbances: list[tuple[str, float]] = []
    memory: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as service:
        load = Load(service, found, tally, options.seed)
        for what in (upload, request):
            load.add(options.clients, what)
        for what in (stream, socket):
            load.add(options.streams, what)
        load.add(1, hang_up)
        began = time.monotonic()
        until = began + 60 * options.minutes
        while (left_sec := until - time.monotonic()) > 0:
            time.sleep(min(left_sec, options.every_sec))
            memory.append(memory_mib(service))
            if time.monotonic() < until:
                at = time.monotonic()
                what_happened = disturb(service, chosen)
                if what_happened.startswith(("stop shortly", "pause", "starve")):
                    at = time.monotonic()
                disturbances.append((what_happened, recovery_sec(service, found[0], at)))
                line = f"{time.strftime('%H:%M:%S')} {what_happened}: {disturbances[-1][1]:.1f} s"
                print(line, file=sys.stderr, flush=True)
            if service.process.poll() is not None:
                raise SystemExit(f"moulin serve has ended\n{service.log.read_text(errors='replace')[-3000:]}")
        load.stop()
        state = httpx.get(f"http://{service.gateway}/readyz").json()
        last = memory_mib(service)
        minutes = (time.monotonic() - began) / 60
        log = service.log.read_text(errors="replace")
    tally.count_unlike(moves_by_id(log))
    return {
        "minutes": round(minutes, 1),
        "requests": tally.number("right", ways=("upload", "request")),
        "streams": tally.number("right", ways=("stream", "socket")),
        "wrong": tally.number("wrong"),
        "no answer": tally.number("no answer"),
        "unclear errors": tally.number("unclear error"),
        "outcomes": dict(sorted(tally.outcomes.items())),
        "examples": tally.examples,
        "disturbances": len(disturbances),
        "worst recovery sec": _worst(disturbances),
        "restarts": state.get("processes"),
        "memory MiB": {"after the first": memory[0], "in the middle": memory[len(memory) // 2], "at the end": last},
        "load average": [round(number, 1) for number in os.getloadavg()],
        "log bytes": len(log),
        "tracebacks in the log": tracebacks(log),
        "Triton's exit timeout expired": "Exit timeout expired" in log,
    }


def moves_by_id(log: str) -> dict[str, int]:
    """How often the stream of each request moved to another lane."""
    return {request_id: int(moves) for moves, request_id in re.findall(r"  moves=(\d+).*  request_id=(\w+)", log)}


def tracebacks(log: str) -> list[str]:
    """What stands around each "Traceback", at most ten."""
    lines = log.splitlines()
    found = [at for at, line in enumerate(lines) if "Traceback" in line]
    return ["\n".join(lines[max(at - 3, 0) : at + 40]) for at in found[:10]]


def _worst(disturbances: list[tuple[str, float]]) -> dict[str, dict[str, float]]:
    by_kind: dict[str, list[float]] = {}
    for what, seconds in disturbances:
        by_kind.setdefault(what, []).append(seconds)
    return {what: {"times": len(all_sec), "worst": round(max(all_sec), 1)} for what, all_sec in sorted(by_kind.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every-sec", type=float, default=15.0, help="from a recovery to the next disturbance")
    parser.add_argument("--clients", type=int, default=2, help="of uploads, and as many of requests to Triton")
    parser.add_argument("--streams", type=int, default=2, help="to Triton, and as many to the gateway")
    parser.add_argument("--recovery-sec", type=float, default=RECOVERY_SEC, help="more on a machine with other work")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--to", type=Path, help="a file for the report too")
    options = parser.parse_args()
    report = soak(options)
    text = json.dumps(report, indent=1)
    print(text)
    if options.to is not None:
        options.to.write_text(text + "\n")
    # What is stopped has to be found first.
    slowest = max(
        (row["worst"] - (SILENT_SEC if what.startswith("stop ") else 0.0))
        for what, row in {"": {"worst": 0.0}, **report["worst recovery sec"]}.items()
    )
    failed = report["wrong"] or report["no answer"] or report["unclear errors"] or slowest > options.recovery_sec
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
