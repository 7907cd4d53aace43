#!/usr/bin/env python3
"""Cores, cards and bandwidth for loads that nobody here could run, of measured figures, for docs/numbers.md.

Every figure is read from docs/benchmarks/results. Without arguments the tables are rewritten; with --check nothing is
changed, and the exit status is 1 where one is out of date.
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "benchmarks" / "results"
PAGE = ROOT / "docs" / "numbers.md"

LOAD = 0.7
"""The share of what was measured that is used: the rest is for bursts, and for a machine that is away."""

CHUNK_MS = 320
CHUNKS_A_SEC = 1000 / CHUNK_MS
SAMPLE_BYTES, SAMPLE_RATE = 2, 16000
HEADER_BYTES = 66
"""Of a chunk: Ethernet, IP, TCP and WebSocket."""

GATEWAY_POD_CORES = 4
DAY_SEC = 86400
STREAMS, HOURS_A_DAY = (1000, 10_000, 100_000), 100_000


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    measured = Measured.read()
    texts = {"measured": measured.table(), "streams": streams_table(measured), "bulk": bulk_table(measured)}
    old = PAGE.read_text()
    new = old
    for name, text in texts.items():
        new, count = re.subn(
            rf"(<!-- numbers:{name} -->).*?(<!-- /numbers:{name} -->)",
            lambda match, text=text: f"{match[1]}\n{text}\n{match[2]}",
            new,
            flags=re.DOTALL,
        )
        if count != 1:
            sys.exit(f"{PAGE} has no place for the table {name!r}")
    if check and new != old:
        sys.exit("Out of date: docs/numbers.md (hint: run scripts/numbers-on-paper.py)")
    PAGE.write_text(new)


@dataclass(frozen=True)
class Measured:
    """Figures, each with the result that has it."""

    server_us: float
    """tritonserver and the model's process, for a chunk of 320 ms in bundles."""
    gateway_us: float
    card_streams: float
    """How many streams one card bears in process, without a server in front of it."""
    served_streams: float
    """Streams of a card through Triton in bundles, on a host of 16 cores."""
    gateway_streams: float
    """The same through WebSockets and a gateway on the same cores."""
    card_mib: float
    """Memory of the card for a stream."""
    card_speed: float
    """Seconds of audio a second on one card, in process."""
    served_speed: float
    """The same through Triton's gRPC."""
    mp3_speed: float
    """Seconds of MP3 that a core decodes in a second."""
    wav_speed: float
    voice_speed: float
    """Seconds of audio in which a core finds speech in a second."""

    @classmethod
    def read(cls) -> Measured:
        bundle = run(result("2026-11-29-cpu2-way-in-500"), "idle-bundle")
        gateway = run(result("2026-11-29-cpu2-way-in-100"), "idle-gateway")
        capacity = result("2026-11-29-h200-stream-capacity")
        bundles, gateways = (result(f"2026-11-29-h200-way-in-{way}")["runs"] for way in ("bundles", "gateway"))
        whole = result("2026-11-29-h200-gpu-engine")["pipeline"]
        engine = [one for one in whole if one["method"] == "greedy" and one["batch"] == 256]
        service = result("2026-11-30-h200-recordings")["runs"]
        decoding = result("2026-11-29-cpu2-decoding")
        return cls(
            server_us=us_a_chunk(bundle, bundle["server_processes_cpu_sec"][:2]),
            gateway_us=us_a_chunk(gateway, gateway["server_processes_cpu_sec"][2:3]),
            card_streams=capacity["largest"],
            served_streams=held(bundles),
            gateway_streams=held(gateways),
            card_mib=capacity["capacity"][0]["memory_mib"]["card"] / capacity["slots"],
            card_speed=max(one["int16"]["rtfx"] for one in engine),
            served_speed=max(one["audio_sec_a_sec"] for one in service),
            mp3_speed=decoding["formats"]["MP3 48 kHz stereo"]["moulin"],
            wav_speed=decoding["formats"]["WAV 16 kHz"]["moulin"],
            voice_speed=decoding["voice_activity"],
        )

    def table(self) -> str:
        rows = [
            ("server, a chunk in bundles", f"{self.server_us:,.0f} µs", "2026-11-29-cpu2-way-in-500"),
            ("gateway, a chunk", f"{self.gateway_us:,.0f} µs", "2026-11-29-cpu2-way-in-100"),
            ("streams of a card, steps alone", f"{self.card_streams:,.0f}", "2026-11-29-h200-stream-capacity"),
            ("memory of a card, a stream", f"{self.card_mib:.2f} MiB", "2026-11-29-h200-stream-capacity"),
            ("streams of a card, Triton, bundles", f"{self.served_streams:,.0f}", "2026-11-29-h200-way-in-bundles"),
            (
                "the same behind a gateway on its cores",
                f"{self.gateway_streams:,.0f}",
                "2026-11-29-h200-way-in-gateway",
            ),
            ("recordings on a card, in process", f"{self.card_speed:,.0f} × real time", "2026-11-29-h200-gpu-engine"),
            ("recordings through gRPC", f"{self.served_speed:,.0f} × real time", "2026-11-30-h200-recordings"),
            ("a core decodes MP3, 48 kHz stereo", f"{self.mp3_speed:,.0f} × real time", "2026-11-29-cpu2-decoding"),
            ("a core reads WAV, 16 kHz", f"{self.wav_speed:,.0f} × real time", "2026-11-29-cpu2-decoding"),
            ("a core finds speech", f"{self.voice_speed:,.0f} × real time", "2026-11-29-cpu2-decoding"),
        ]
        return markdown(
            ("figure", "measured", "result"),
            [(name, value, f"[{stem}](benchmarks/results/{stem}.json)") for name, value, stem in rows],
        )


def streams_table(measured: Measured) -> str:
    """Live streams of 16-bit samples in chunks of 320 ms."""
    bit = 8 * (SAMPLE_BYTES * SAMPLE_RATE + CHUNKS_A_SEC * HEADER_BYTES)
    rows = []
    for streams in STREAMS:
        server, gateway = (
            streams * CHUNKS_A_SEC * us * 1e-6 / LOAD for us in (measured.server_us, measured.gateway_us)
        )
        cards = streams / (measured.card_streams * LOAD)
        rows.append(
            (
                f"{streams:,}",
                f"{streams * bit / 1e6:,.0f} Mbit/s",
                f"{gateway:,.1f}",
                f"{math.ceil(gateway / GATEWAY_POD_CORES):,}",
                f"{server:,.1f}",
                f"{cards:.2f}, so {math.ceil(cards):,}",
                f"{streams * measured.card_mib / 1024:,.1f} GiB",
                f"{math.ceil(streams / (measured.served_streams * LOAD)):,}",
            )
        )
    header = ("streams", "audio in", "gateway cores", f"pods of {GATEWAY_POD_CORES}", "server cores", "cards")
    return markdown((*header, "card memory", "cards through Triton"), rows)


def bulk_table(measured: Measured) -> str:
    """A number of hours a day as bulk."""
    speed = HOURS_A_DAY * 3600 / DAY_SEC
    rows = []
    for name, core_speed, rate in (
        ("WAV, 16 kHz, utterances", measured.wav_speed, SAMPLE_BYTES * SAMPLE_RATE * 8),
        ("MP3, 48 kHz stereo at 128 kbit/s, utterances", measured.mp3_speed, 128_000),
        ("MP3, long: cut by the decoders", 1 / (1 / measured.mp3_speed + 1 / measured.voice_speed), 128_000),
    ):
        cores = speed / core_speed / LOAD
        cards = speed / (measured.card_speed * LOAD)
        rows.append((name, f"{speed * rate / 1e6:,.0f} Mbit/s", f"{cores:,.1f}", f"{cards:.2f}, so {math.ceil(cards)}"))
    return markdown((f"{HOURS_A_DAY:,} h a day ({speed:,.0f} × real time)", "read", "decoding cores", "cards"), rows)


def result(stem: str) -> dict[str, Any]:
    """A result of docs/benchmarks/results."""
    read: dict[str, Any] = json.loads((RESULTS / f"{stem}.json").read_text())
    return read


def run(report: dict[str, Any], target: str) -> dict[str, Any]:
    """The run of a report with that target."""
    (found,) = (one for one in report["runs"] if one["target"] == target)
    return found


def held(runs: list[dict[str, Any]]) -> float:
    """The most streams of which 95 % of the chunks were answered within their own length, and none failed."""
    return max(one["streams"] for one in runs if not one["failures"] and one["latency_ms"]["p95"] <= CHUNK_MS)


def us_a_chunk(found: dict[str, Any], cpu_sec: list[float]) -> float:
    """CPU time of some processes for a chunk, in µs."""
    return sum(cpu_sec) / (found["streams"] * found["seconds"] * CHUNKS_A_SEC) * 1e6


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table."""
    return "\n".join(["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows)])


if __name__ == "__main__":
    main()
