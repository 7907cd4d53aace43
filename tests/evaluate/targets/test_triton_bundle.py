"""Streams that share requests, as a target of measurements, on the real Triton."""

from __future__ import annotations

import asyncio
import math
from functools import partial

import pytest

from moulin.errors import OptionsError
from moulin.evaluate.accuracy import Accuracy, Cut, measure_accuracy
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.run import run_plan
from moulin.evaluate.streaming_benchmark import streams_plan
from moulin.evaluate.streaming_clips import read_clips, whole_clips
from moulin.evaluate.streaming_load import Pace
from moulin.evaluate.targets import triton
from moulin.evaluate.targets.registry import target
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.wer import digits_spelled_alike
from moulin.launch.server import TritonServer
from moulin.models.engine_choice import EngineChoice
from moulin.transcript import Transcript
from moulin.triton_repo.contract import STREAMING_MODEL_NAME
from tests.conftest import TINY_MODEL

pytestmark = pytest.mark.triton

SETTINGS = ServerSettings(EngineChoice(threads=1))
IN_CHUNKS: Cut = partial(read_clips, model=None, chunk_samples=5120)


def test_bundles_hear_what_the_engine_does(server: TritonServer) -> None:
    accuracy = Accuracy("bundle")
    name = f"triton-bundle={server.grpc_url}/{STREAMING_MODEL_NAME}"
    with target(name, "streams")(None, SETTINGS) as running:
        measure_accuracy(accuracy, running, demo_clips(), IN_CHUNKS, digits_spelled_alike, workers=4)
    assert accuracy.failed == []
    assert (accuracy.words.errors, accuracy.words.words) == (18, 140)


def test_every_chunk_has_a_latency_and_every_stream_its_text(
    server: TritonServer, heard_live: list[Transcript]
) -> None:
    """Two load generators' worth of lines at once; a chunk is answered, at the latest, with the end of its stream."""
    wanted = dict(zip([clip.id for clip in IN_CHUNKS(demo_clips())], heard_live, strict=True))
    load = streams_plan(IN_CHUNKS(demo_clips()), 6, Pace(5120, seconds=9.0, warmup_sec=0.5))
    name = f"triton-bundle={server.grpc_url}/{STREAMING_MODEL_NAME}"
    with target(name, "streams")(None, SETTINGS) as running:
        run = asyncio.run(run_plan("bundle", running, load, str.upper))
    assert run.measurement.failures == ()
    finished = [record for record in run.records if record.text is not None]
    assert finished
    for record in finished:
        assert record.text == wanted[record.clip.id].text
        assert not any(math.isnan(replied) for replied in record.replied)
        assert all(sent <= replied for sent, replied in zip(record.sent, record.replied, strict=True))
        assert record.replied == sorted(record.replied)
        assert record.partials[-1][1] == record.text
    assert run.measurement.statistics is not None
    assert run.measurement.statistics.requests == run.measurement.requests


def test_what_takes_no_bundles(server: TritonServer) -> None:
    with pytest.raises(OptionsError, match="for streams"):
        triton.connect("bundle", server.grpc_url, TINY_MODEL, "", whole_clips(demo_clips()[:1]))
    load = streams_plan(IN_CHUNKS(demo_clips()[:1]), 1, Pace(5120, seconds=1.0, warmup_sec=0.1))
    with target(f"triton-bundle={server.grpc_url}/{TINY_MODEL}", "streams")(None, SETTINGS) as running:
        run = asyncio.run(run_plan("bundle", running, load, str.upper))
    assert "no bundles" in run.measurement.failures[0]
