#!/usr/bin/env python3
"""CPU time of the gateway for each chunk of live streams over `WS /v1/stream`, of this checkout and of others by turns,
all in front of one service that does nothing.

    scripts/gateway-speed.py [--streams 100] [--seconds 10] [--rounds 3] [--ping-every 10] [CHECKOUT …]

Prints a line of JSON a run: microseconds a chunk of the gateway's process, those of them in the kernel, those of
the load generator, and how many chunks the service took in a request. `failed` must be 0, and `wer` the same
everywhere: the service says words that have nothing to do with the audio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.normalizer import TextNormalizer
from moulin.evaluate.run import run_plan
from moulin.evaluate.streaming_benchmark import streams_plan
from moulin.evaluate.streaming_clips import read_clips
from moulin.evaluate.streaming_load import Pace
from moulin.evaluate.targets import gateway_stream
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.targets.triton import served
from moulin.evaluate.targets.triton_statistics import read_over_grpc
from moulin.launch.gateway import GatewayProcess
from moulin.launch.ports import claim_ports
from moulin.triton_repo.contract import MODEL_NAME

HERE = Path(__file__).parent.parent
SAMPLES = 5120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path)
    for name, value in (("streams", 100), ("seconds", 10), ("rounds", 3), ("ping-every", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    gateway_stream._PING_EVERY = chosen.ping_every
    spec = load_bundle(DEMO_STREAMING_MODEL, expect="streaming")
    clips = read_clips(list(demo_clips()), spec.streaming, SAMPLES)
    settings = ServerSettings(moulin={"max-streams": str(2 * chosen.streams + 64)})
    with served(spec, settings, idle=True) as server, ExitStack() as stack:
        gateways = {}
        for checkout in (*chosen.checkouts, HERE):
            (port,) = claim_ports("127.0.0.1", {"gateway": 0}).values()
            arguments = ["--triton", server.grpc_url, "--port", str(port), "--quiet"]
            arguments += ["--max-streams", str(chosen.streams + 64)]
            environ = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
            gateway = GatewayProcess(arguments, address=f"127.0.0.1:{port}", environ=environ)
            gateways[checkout.resolve().name] = stack.enter_context(gateway), f"127.0.0.1:{port}"
        for seed in range(chosen.rounds):
            for name, (gateway, address) in gateways.items():
                pace = Pace(SAMPLES, chosen.seconds, seed)
                assert gateway.pid is not None
                statistics = partial(read_over_grpc, server.grpc_url, MODEL_NAME)
                target = gateway_stream.stream_at(address, settings)
                running = replace(target, gateway_pid=gateway.pid, statistics=statistics)
                plan = streams_plan(clips, chosen.streams, pace)
                before = _ticks(gateway.pid)
                run = asyncio.run(run_plan(name, running, plan, TextNormalizer()))
                user, system = (now - then for now, then in zip(_ticks(gateway.pid), before, strict=True))
                figures = run.measurement.figures()
                assert figures.server_cpu_sec is not None
                assert figures.triton is not None
                sent = [at for record in run.records for at in record.sent]
                chunks = sum(run.first_sec <= at < run.first_sec + chosen.seconds for at in sent)
                cpu = 1e6 * figures.server_cpu_sec / chunks
                told = {
                    "gateway": name,
                    "streams": chosen.streams,
                    "us_a_chunk": round(cpu, 1),
                    "in_kernel": round(cpu * system / (user + system), 1),
                    "generator_us": round(1e6 * figures.generator_cpu_sec / chunks, 1),
                    "chunks": chunks,
                    "chunks_a_request": round(len(sent) / figures.triton.executions, 1),
                    "p50_ms": figures.latency_ms.p50,
                    "failed": figures.failures,
                    "wer": figures.wer,
                    "others_cores": round((figures.others_cpu_sec or 0) / chosen.seconds, 2),
                }
                print(json.dumps(told), flush=True)
        server.stop()


def _ticks(pid: int) -> list[int]:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(fields[11]), int(fields[12])]


if __name__ == "__main__":
    sys.exit(main())
