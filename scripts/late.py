#!/usr/bin/env python3
"""Makes the causes of docs/late.md happen to a real service with the demo models, and asks a real Prometheus what that
page, the alert rules and Grafana's dashboard ask.

    scripts/late.py [--causes quiet,streams] [--seconds 30] [--to report.json]

Each cause has a service of its own, on free ports. Windows of queries and rules become half of --seconds, and what an
alert waits for 3 s. Needs the extras `serve` and `test`, and `prometheus` on the PATH or in PROMETHEUS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import websockets
import yaml

from moulin.audio.decode import read_audio
from moulin.evaluate.manifest import demo_clips
from moulin.launch.ports import claim_ports

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "deploy" / "docker"
CHUNK = 5120
"""Samples that a client sends at a time, 320 ms."""
RATE = 16000


@dataclass(frozen=True)
class Service:
    """A `moulin serve`: addresses, and the process."""

    gateway: str
    metrics: str
    process: subprocess.Popen[bytes]

    def children(self, pattern: str) -> list[int]:
        """The ids of its children, and of theirs, whose command line matches `pattern`."""
        done = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
        return [pid for pid in map(int, done.stdout.split()) if self.process.pid in _above(pid)]


def _above(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        with contextlib.suppress(OSError):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            continue
        return


@contextmanager
def serving(folder: Path, flags: Sequence[str]) -> Iterator[Service]:
    ports = claim_ports("127.0.0.1", {f"--{name}-port": 0 for name in ("http", "grpc", "metrics", "gateway")})
    command = [sys.executable, "-m", "moulin", "serve", *(f"{flag}={port}" for flag, port in ports.items()), *flags]
    log = folder / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while "Ctrl-C stops it" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        yield Service(f"127.0.0.1:{ports['--gateway-port']}", f"127.0.0.1:{ports['--metrics-port']}", process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


# --------------------------------------------------------------------------------------------------------- Prometheus


class Prometheus:
    """Debian's, that scrapes a service once a second."""

    def __init__(self, url: str, window_sec: float) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)
        self._window = f"[{window_sec:.0f}s]"

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the value of each series of the answer."""
        shortened = re.sub(r"\[\d+[smh]\]", self._window, query)
        answer = self._http.get("/api/v1/query", params={"query": shortened}).json()
        if answer["status"] != "success":
            raise SystemExit(f"{query}: {answer}")
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def firing(self) -> list[str]:
        alerts = self._http.get("/api/v1/alerts").json()["data"]["alerts"]
        return sorted({alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"})


@contextmanager
def prometheus(service: Service, folder: Path, window_sec: float) -> Iterator[Prometheus]:
    rules = re.sub(r"\[\d+[mh]\]", f"[{window_sec:.0f}s]", (DOCKER / "alerts.yaml").read_text())
    (folder / "alerts.yml").write_text(re.sub(r"for: \d+m", "for: 3s", rules))
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = {"triton": service.metrics, "gateway": service.gateway}
    for job in config["scrape_configs"]:
        job.pop("authorization", None)
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = claim_ports("127.0.0.1", {"--prometheus": 0})["--prometheus"]
    url = f"http://127.0.0.1:{port}"
    command = [os.environ.get("PROMETHEUS", "prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/-/ready").status_code == 200:
                    break
            if process.poll() is not None:
                raise SystemExit((folder / "prometheus.log").read_text())
            time.sleep(0.2)
        yield Prometheus(url, window_sec)
    finally:
        process.terminate()
        process.wait()


def queries_of_the_page() -> list[str]:
    """Each line of PromQL in docs/late.md, without its comment."""
    blocks = re.findall(r"```promql\n(.*?)```", (ROOT / "docs" / "late.md").read_text(), re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def queries_of_the_dashboard() -> dict[str, list[str]]:
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "moulin.json").read_text())
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard["panels"]}


# ---------------------------------------------------------------------------------------------------------------- loads

Load = Callable[[Service], Awaitable[None]]
"""Goes on until it is cancelled."""


def _speech() -> np.ndarray[Any, np.dtype[np.int16]]:
    """The demo's recordings, one after another."""
    whole = np.concatenate([read_audio(clip.audio) for clip in demo_clips()])
    return (np.clip(whole, -1, 1) * 32767).astype("<i2")


SPEECH = _speech()


async def _stream(service: Service, number: int, options: Mapping[str, Any], pause_sec: float, reads: bool) -> None:
    """One live session after another, of 8 s each, from another place of the speech for each number."""
    address = f"ws://{service.gateway}/v1/stream?encoding=s16le&sample_rate={RATE}"
    await asyncio.sleep((number % 32) / 100)
    while True:
        try:
            async with websockets.connect(address, max_queue=None if reads else 1) as socket:
                await socket.send(json.dumps({"type": "options", "options": dict(options)}))
                reading = asyncio.create_task(_read(socket)) if reads else None
                due = time.monotonic()
                for index in range(25):
                    begin = (number * 7919 + index) * CHUNK % (len(SPEECH) - CHUNK)
                    await socket.send(SPEECH[begin : begin + CHUNK].tobytes())
                    due += CHUNK / RATE + pause_sec
                    await asyncio.sleep(max(0, due - time.monotonic()))
                await socket.send('{"type": "end"}')
                if reading:
                    await reading
        except (OSError, websockets.WebSocketException):
            await asyncio.sleep(0.5)  # refused, or cut off by a restart


async def _read(socket: websockets.ClientConnection) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        async for _ in socket:
            pass


def streams(count: int, *, pause_sec: float = 0, reads: bool = True, **options: Any) -> Load:
    async def load(service: Service) -> None:
        await asyncio.gather(*(_stream(service, number, options, pause_sec, reads) for number in range(count)))

    return load


def uploads(at_once: int, seconds: float = 34) -> Load:
    """Recordings of so many seconds, so many at once."""
    samples = SPEECH[: int(seconds * RATE)]
    wav = _wav(samples)

    async def one(http: httpx.AsyncClient, service: Service) -> None:
        while True:
            with contextlib.suppress(httpx.TransportError):
                form = {"model": "whisper-1"}
                await http.post(
                    f"http://{service.gateway}/v1/audio/transcriptions", files={"file": ("a.wav", wav)}, data=form
                )

    async def load(service: Service) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=600, limits=limits) as http:
            await asyncio.gather(*(one(http, service) for _ in range(at_once)))

    return load


def _wav(samples: np.ndarray[Any, np.dtype[np.int16]]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def slow_uploads(at_once: int, bytes_per_sec: int = 8000) -> Load:
    """Clients that send a recording slowly."""
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b\r\nContent-Disposition: '
    body += b'form-data; name="file"; filename="a.wav"\r\n\r\n' + _wav(SPEECH[: 34 * RATE]) + b"\r\n--b--\r\n"
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"

    async def one(service: Service) -> None:
        host, _, port = service.gateway.partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        for begin in range(0, len(body), bytes_per_sec // 10):
            writer.write(body[begin : begin + bytes_per_sec // 10])
            await asyncio.sleep(0.1)

    async def load(service: Service) -> None:
        await asyncio.gather(*(one(service) for _ in range(at_once)))

    return load


async def neighbours(_service: Service) -> None:
    """Four processes that compute, and give way to nobody."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        await asyncio.Event().wait()
    finally:
        for process in busy:
            process.kill()
            process.wait()


async def kills(service: Service) -> None:
    """The process of the streaming model is killed, again and again."""
    while True:
        await asyncio.sleep(6)
        for pid in service.children("triton_python_backend_stub")[-1:]:
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Cause:
    """What is wrong: flags of the service, and what clients and others do."""

    flags: tuple[str, ...]
    loads: tuple[Load, ...]


EIGHT = streams(8)
CAUSES = {
    "quiet": Cause((), (EIGHT, uploads(1, 8))),
    "streams": Cause((), (streams(90),)),
    "neighbours": Cause((), (EIGHT, neighbours)),
    "recordings": Cause((), (EIGHT, uploads(6))),
    "beams": Cause((), (streams(8, method="modified_beam_search", beam=32, nbest=8),)),
    "threads-2": Cause(("--threads=2",), (streams(24),)),
    "threads-1": Cause(("--threads=1",), (streams(24),)),
    "full": Cause(("--max-streams=10",), (streams(16),)),
    "restarts": Cause((), (EIGHT, uploads(2, 8), kills)),
    "slow-clients": Cause((), (EIGHT, streams(4, pause_sec=0.6, reads=False), slow_uploads(4))),
    "waiting": Cause((), (uploads(60, 100),)),
}


# -------------------------------------------------------------------------------------------------------------- report

GAUGES = (
    "sum(moulin_streams)",
    "sum(rate(moulin_audio_seconds_total[1m]))",
    "sum(moulin_gateway_transcribing)",
    "sum(moulin_gateway_queued)",
    "sum(moulin_gateway_uploads)",
    "sum(increase(moulin_restarts_total[1m]))",
    "avg(nv_cpu_utilization)",
    "sum(increase(moulin_streams_refused_total[1m]))",
)


async def measured(name: str, seconds: float) -> dict[str, Any]:
    """What Prometheus says near the end of so many seconds of a cause."""
    cause, window_sec = CAUSES[name], seconds / 2
    with tempfile.TemporaryDirectory(prefix="moulin-late-") as place:
        folder = Path(place)
        with serving(folder, cause.flags) as service, prometheus(service, folder, window_sec) as asked:
            async with _going_on(service, cause.loads):
                await asyncio.sleep(seconds)
                return await asyncio.to_thread(_answers, asked)


@asynccontextmanager
async def _going_on(service: Service, loads: Sequence[Load]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(load(service)) for load in loads]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _answers(asked: Prometheus) -> dict[str, Any]:
    panels = queries_of_the_dashboard()
    return {
        "page": {query: asked.ask(query) for query in queries_of_the_page()},
        "gauges": {query: asked.ask(query) for query in GAUGES},
        "firing": asked.firing(),
        "empty_panels": [title for title, queries in panels.items() if not any(map(asked.ask, queries))],
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--causes", default=",".join(CAUSES), help="some of: %(default)s")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    report = {}
    for name in options.causes.split(","):
        found = report[name] = asyncio.run(measured(name, options.seconds))
        print(f"\n## {name}: {', '.join(found['firing']) or 'no alert'}; empty: {found['empty_panels']}", flush=True)
        for query, series in {**found["page"], **found["gauges"]}.items():
            shown = ", ".join(f"{' '.join(labels.values())} {value:.4g}".strip() for labels, value in series[:6])
            print(f"{shown or '-':32} {query}", flush=True)
        if options.to:
            options.to.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
