#!/usr/bin/env python3
"""Runs unmodified clients of sherpa's Triton recipes against `moulin serve`, on the demo's recordings.

    git clone https://github.com/yuekaizhang/Triton-ASR-Client
    git clone https://github.com/k2-fsa/sherpa && git -C sherpa checkout 51876add^     # the last one with its clients
    scripts/old-clients.py Triton-ASR-Client [--sherpa sherpa/triton/client] [--tasks 50] [--to report.json]

Triton-ASR-Client: offline and streaming in `--tasks` tasks; a streaming one killed in the middle and run again; two
streaming ones at once, of which the first must hear all right and the second be told which id is in use. sherpa's
client.py: offline and streaming, and what its generate_perf_input.py writes, replayed. Beside their figures stand those
of `moulin bench` on the same server. The two folders are only read.

Ends with status 1 where something did not go so. Needs the extras `serve` and `test`; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.cli.command import MOULIN, Serving
from tests.triton_repo.sherpa_client import replay

from moulin.audio.decode import read_audio
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips

_COPIES = 4
"""14 recordings so often are 56: one at least for each of 50 tasks."""
_TAKEOVER_SEC = 3.0
_PATIENCE_SEC = 300


@dataclass(frozen=True)
class Recordings:
    """Kaldi's wav.scp and trans.txt in the folder `kaldi`; the same with tabs in `tabbed`."""

    kaldi: Path
    tabbed: Path


@dataclass(frozen=True)
class Ended:
    """A client that has ended: its status and what it printed, and the folder of its reports."""

    status: int
    output: str
    log: Path

    def figure(self, name: str) -> float | None:
        match = re.search(rf"{re.escape(name)}:? =? ?([\d.]+)", self.output)
        return float(match[1]) if match else None

    def figures(self) -> dict[str, float | None]:
        """What Triton-ASR-Client measures."""
        return {
            "rtf": self.figure("RTF"),
            "latency_50_ms": self.figure("latency_50_percentile_ms"),
            "latency_95_ms": self.figure("latency_95_percentile_ms"),
            "wer_percent": self.figure("%WER"),
        }

    def texts(self) -> list[str]:
        """The lines of its file of transcripts that hold what was heard."""
        return [
            line for file in self.log.glob("recogs-*.txt") for line in file.read_text().splitlines() if "hyp=" in line
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triton_asr_client", type=Path, help="a clone of yuekaizhang/Triton-ASR-Client")
    parser.add_argument("--sherpa", type=Path, help="triton/client of k2-fsa/sherpa before 51876add")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--to", type=Path, help="also write the JSON into this file")
    given = parser.parse_args()
    clone, sherpa = given.triton_asr_client.resolve(), given.sherpa and given.sherpa.resolve()
    report: dict[str, Any] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="old-clients-") as name:
        folder = Path(name)
        recordings = _write_recordings(folder)
        with _served(DEMO_MODEL, folder / "offline") as url:
            client = TritonAsrClient(clone, url, recordings.kaldi, given.tasks, folder)
            report["offline"] = _figures(client.run("offline"), failures)
            report["offline"]["moulin_bench"] = _bench("offline", url, recordings.kaldi, given.tasks)
            if sherpa:
                report["sherpa_offline"] = _sherpa(sherpa, url, recordings.tabbed, failures)
        with _served(DEMO_STREAMING_MODEL, folder / "streaming") as url:
            client = TritonAsrClient(clone, url, recordings.kaldi, given.tasks, folder)
            report["streaming"] = _figures(client.run("streaming", "--streaming"), failures)
            report["simulate_streaming"] = _figures(client.run("simulated", "--simulate-streaming"), failures)
            report["simulate_streaming"]["moulin_bench"] = _bench("streaming", url, recordings.kaldi, given.tasks)
            report["aborted"] = _abort_and_again(client, failures)
            report["two_at_once"] = _two_at_once(client, failures)
            if sherpa:
                report["sherpa_streaming"] = _sherpa(sherpa, url, recordings.tabbed, failures, "--streaming")
    report["failures"] = failures
    text = json.dumps(report, indent=1)
    print(text)
    if given.to:
        given.to.write_text(text + "\n")
    sys.exit(1 if failures else 0)


@dataclass(frozen=True)
class TritonAsrClient:
    """The client in the folder `clone`, for the server at `url`, host and port."""

    clone: Path
    url: str
    manifest: Path
    tasks: int
    folder: Path

    def start(self, name: str, *flags: str) -> tuple[subprocess.Popen[str], Path]:
        host, port = self.url.rsplit(":", 1)
        log = self.folder / f"log-{name}"
        command = [sys.executable, "client.py", "--server-addr", host, "--server-port", port]
        command += ["--manifest-dir", str(self.manifest), "--num-tasks", str(self.tasks), "--log-dir", str(log), *flags]
        return _start(command, self.clone), log

    def run(self, name: str, *flags: str) -> Ended:
        process, log = self.start(name, *flags)
        return _wait(process, log)


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _wait(process: subprocess.Popen[str], log: Path) -> Ended:
    output, _ = process.communicate(timeout=_PATIENCE_SEC)
    return Ended(process.returncode, output, log)


def _figures(ended: Ended, failures: list[str]) -> dict[str, Any]:
    if ended.status:
        failures.append(f"status {ended.status}: {ended.output[-2000:]}")
    return dict(ended.figures())


def _abort_and_again(client: TritonAsrClient, failures: list[str]) -> dict[str, Any]:
    """A client is killed in the middle of its streams; another with the same ids runs when they are quiet."""
    process, _ = client.start("killed", "--simulate-streaming")
    time.sleep(4)
    process.kill()
    process.communicate()
    time.sleep(_TAKEOVER_SEC + 0.5)
    return {"quiet_sec": _TAKEOVER_SEC + 0.5, **_figures(client.run("again", "--streaming"), failures)}


def _two_at_once(client: TritonAsrClient, failures: list[str]) -> dict[str, Any]:
    """The first hears what it hears alone; the second, whose ids are the same, is told which one is in use."""
    alone = client.run("alone", "--streaming").texts()
    first, log = client.start("first", "--simulate-streaming")
    time.sleep(3)
    second = client.run("second", "--simulate-streaming")
    ended = _wait(first, log)
    told = re.search(r"[^\n]*\b(100\d\d|101\d\d)\b[^\n]*", second.output)
    if ended.texts() != alone or not alone:
        failures.append(f"the first of two heard something else: {ended.output[-2000:]}")
    if second.status == 0 or told is None:
        failures.append(f"the second of two was not told which id is in use: {second.output[-2000:]}")
    return {
        "first_texts": len(alone),
        "first": dict(ended.figures()),
        "second_was_told": told[0].strip() if told else None,
    }


def _sherpa(client: Path, url: str, data: Path, failures: list[str], *flags: str) -> dict[str, Any]:
    """sherpa's client.py on the recordings in `data`, where its reports go, and its JSON for perf_analyzer."""
    errors = data / f"errors{''.join(flags)}.txt"
    wavscp, trans = data / "wav.scp", data / "trans.txt"
    named = ["-u", url, "--wavscp", str(wavscp), "--trans", str(trans), "--errs_file", str(errors)]
    ended = _wait(_start([sys.executable, "client.py", *named, *flags], client), data)
    if ended.status:
        failures.append(f"sherpa's client, status {ended.status}: {ended.output[-2000:]}")
    heard = re.findall(r"Recognized [^:]*:(.*)", ended.output)
    first = wavscp.read_text().splitlines()[0].split("\t")[1]
    writer = [sys.executable, str(client / "generate_perf_input.py"), "--audio_file", first, *flags]
    written = _wait(_start(writer, data), data)
    if written.status:
        failures.append(f"generate_perf_input.py: {written.output[-2000:]}")
        return {"texts": len(heard)}
    file = data / ("online_input.json" if flags else "offline_input.json")
    (text,) = replay(url, json.loads(file.read_text()))
    if not heard or text != heard[0]:
        failures.append(f"{file.name} gave {text!r}, the client {heard[:1]}")
    wer = re.search(r"%WER = ([\d.]+)", errors.read_text()) if errors.is_file() else None
    return {"texts": len(heard), "character_error_percent": float(wer[1]) if wer else None, "replayed": text}


def _bench(verb: str, url: str, data: Path, tasks: int) -> str:
    """The lines of `moulin bench` with as many workers or streams, on the server that runs."""
    load = ["--workers", str(tasks), "--seconds", "10"] if verb == "offline" else ["--streams", str(tasks)]
    command = [
        MOULIN,
        "bench",
        verb,
        "--targets",
        f"triton-grpc={url}",
        "--data",
        str(data),
        "--text",
        str(data / "trans.txt"),
    ]
    done = subprocess.run([*command, *load], capture_output=True, text=True, check=False, timeout=_PATIENCE_SEC)
    return done.stdout + ("" if done.returncode == 0 else done.stderr[-1000:])


@contextmanager
def _served(model: Path, folder: Path) -> Iterator[str]:
    free = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--no-gateway")
    serving = Serving.start([MOULIN, "serve", str(model), *free], folder)
    try:
        serving.wait_ready()
        yield serving.grpc_url
    finally:
        serving.process.terminate()
        serving.process.wait()


def _write_recordings(folder: Path) -> Recordings:
    """The demo's recordings as WAV, with their texts; OH is ZERO, as the model says it."""
    kaldi, tabbed = folder / "kaldi", folder / "tabbed"
    kaldi.mkdir()
    tabbed.mkdir()
    scp, texts = [], []
    for copy in range(_COPIES):
        for clip in demo_clips():
            name = f"{clip.id}-{copy}"
            samples = np.round(read_audio(clip.audio) * 32768).clip(-32768, 32767).astype(np.int16)
            soundfile.write(kaldi / f"{name}.wav", samples, 16000)
            scp.append((name, f"{name}.wav"))
            texts.append((name, clip.text.replace("OH", "ZERO")))
    (kaldi / "wav.scp").write_text("".join(f"{name} {file}\n" for name, file in scp))
    (kaldi / "trans.txt").write_text("".join(f"{name} {text}\n" for name, text in texts))
    (tabbed / "wav.scp").write_text("".join(f"{name}\t{kaldi / file}\n" for name, file in scp[: len(scp) // _COPIES]))
    (tabbed / "trans.txt").write_text("".join(f"{name}\t{text}\n" for name, text in texts[: len(texts) // _COPIES]))
    return Recordings(kaldi, tabbed)


if __name__ == "__main__":
    main()
