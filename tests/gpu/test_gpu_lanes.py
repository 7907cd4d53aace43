"""A lane of streams on the GPU engine: audio comes into the rings while the card steps; texts are the plain ones."""

from __future__ import annotations

import numpy as np
import torch

from moulin.audio.waveform import as_floats, in_16_bits
from moulin.engine.step_scheduler import StepScheduler
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.triton_repo.contract import Event, Kind
from moulin.triton_repo.lane_service import LaneService
from tests.triton_repo.fake_stream_runner import heard_alone
from tests.triton_repo.test_lane_service import Lane

from .plain_stepper import PlainStepper
from .test_gpu_stepper import SPEC, stepper


def test_streams_of_a_lane_are_heard_as_by_the_plain_stepper(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    audio = {number: in_16_bits(rng.normal(0, 0.2, 9_000 + 700 * number).astype(np.float32)) for number in (1, 2, 3)}
    recognizer = StreamRecognizer(SPEC, stepper(device, 3))
    scheduler = StepScheduler(recognizer)
    lanes = LaneService(recognizer, scheduler)
    lane, sent = Lane(lanes), 0
    while sent < 12_000:
        count = 2_500 + sent // 10
        rows = {number: samples[sent : sent + count] for number, samples in audio.items()}
        events = {
            number: int(sent == 0) * Event.START | int(sent < len(samples) <= sent + count) * Event.END
            for number, samples in audio.items()
        }
        lane.send({number: row for number, row in rows.items() if len(row)}, events)
        sent += count
    for number, samples in audio.items():
        lane.wait_for(number, Kind.CLOSED)
        assert lane.texts[number].text == heard_alone(StreamRecognizer(SPEC, PlainStepper(SPEC, 1)), as_floats(samples))
        assert lane.texts[number].text
    scheduler.close()
    lanes.close()
    assert recognizer.num_open == 0
