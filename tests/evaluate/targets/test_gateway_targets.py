"""The gateway's three interfaces, on the real gateway before the real Triton: nine errors, and eighteen live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest

from moulin.evaluate.accuracy import Accuracy, Cut, measure_accuracy
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.run import run_plan
from moulin.evaluate.streaming_benchmark import streams_plan
from moulin.evaluate.streaming_clips import read_clips, whole_clips
from moulin.evaluate.streaming_load import Pace
from moulin.evaluate.targets.registry import target
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.wer import digits_spelled_alike
from moulin.launch.server import TritonServer
from moulin.models.engine_choice import EngineChoice
from tests.gateway.running_gateway import running_gateway

pytestmark = pytest.mark.triton

SETTINGS = ServerSettings(EngineChoice(threads=1), api_key="secret")
IN_CHUNKS: Cut = partial(read_clips, model=None, chunk_samples=5120)


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    with running_gateway(server.grpc_url, api_keys=("secret",)) as address:
        yield address


@pytest.mark.parametrize(
    ("name", "cut", "errors"),
    [("rest=http://", whole_clips, 9), ("stream=ws://", IN_CHUNKS, 18), ("realtime=ws://", IN_CHUNKS, 18)],
)
def test_every_interface_hears_what_the_engine_does(name: str, cut: Cut, errors: int, gateway: str) -> None:
    accuracy = Accuracy(name)
    with target(f"{name}{gateway}", "requests" if cut is whole_clips else "streams")(None, SETTINGS) as running:
        measure_accuracy(accuracy, running, demo_clips(), cut, digits_spelled_alike, workers=4)
    assert accuracy.failed == []
    assert (accuracy.words.errors, accuracy.words.words) == (errors, 140)


def test_chunks_of_the_plain_protocol_have_latencies(gateway: str) -> None:
    load = streams_plan(IN_CHUNKS(demo_clips()[:2]), 2, Pace(5120, seconds=2.0, warmup_sec=0.5))
    with target(f"stream=ws://{gateway}", "streams")(None, SETTINGS) as running:
        run = asyncio.run(run_plan("stream", running, load, str.upper))
    assert run.measurement.failures == ()
    assert len(run.measurement.latency) >= 3
    assert run.measurement.latency.percentile(50) < 5000


def test_a_key_that_is_not_one_is_said(gateway: str) -> None:
    for name, cut in (("rest=http://", whole_clips), ("stream=ws://", IN_CHUNKS)):
        accuracy = Accuracy(name)
        with target(f"{name}{gateway}", "requests" if cut is whole_clips else "streams")(
            None, ServerSettings(EngineChoice(threads=1), api_key="guess")
        ) as running:
            measure_accuracy(accuracy, running, demo_clips()[:1], cut, str.upper, workers=1)
        (failed,) = accuracy.failed
        assert failed.failure
