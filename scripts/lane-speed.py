#!/usr/bin/env python3
"""CPU time of the python side of lanes for each chunk, in one process and without Triton: bundles of ROWS streams each
to the service over a stepper that does nothing.

    scripts/lane-speed.py [STREAMS [ROWS [BUNDLES]]]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from moulin.arrays import Ints
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.engine.step_scheduler import StepScheduler
from moulin.evaluate.idle_stepper import idle_recognizer
from moulin.triton_repo.contract import Event
from moulin.triton_repo.lane_service import LaneRequest, LaneService

_SAMPLES = 5120


def main(streams: int = 2500, rows: int = 78, bundles: int = 400) -> None:
    recognizer = idle_recognizer(load_bundle(DEMO_STREAMING_MODEL, expect="streaming"), streams)
    scheduler = StepScheduler(recognizer)
    service = LaneService(recognizer, scheduler)
    speech = np.random.default_rng(0).integers(-3000, 3000, (1, rows * _SAMPLES)).astype(np.int16)
    groups = [np.arange(first, min(first + rows, streams)) for first in range(0, streams, rows)]

    def send(number: int, group: Ints, event: int = 0) -> int:
        tensors: dict[str, Any] = {
            "BUNDLE": np.array([[number]], np.uint64),
            "STREAMS": group[None].astype(np.uint64),
            "EVENTS": np.full((1, len(group)), event, np.uint8),
            "CHUNK_LENS": np.full((1, len(group)), _SAMPLES, np.int32),
            "CHUNKS": speech[:, : len(group) * _SAMPLES],
        }
        reply = service.submit(LaneRequest("lane", number == 1, False, tensors))
        reply.tensors()
        return len(reply.streams)

    for number, group in enumerate(groups, 1):
        send(number, group, Event.START)
    cpu, chunks, updates = time.process_time(), 0, 0
    for number in range(bundles):
        group = groups[number % len(groups)]
        updates += send(len(groups) + number + 1, group)
        chunks += len(group)
    cpu = time.process_time() - cpu
    print(f"{streams} streams, {rows} in a bundle: {1e6 * cpu / chunks:.1f} µs a chunk, {updates / chunks:.2f} updates")
    scheduler.close()
    service.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
