"""The real servers, for a few seconds each: the load generator speaks their protocols, and leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.run import run_plan
from moulin.evaluate.streaming_benchmark import streams_plan
from moulin.evaluate.streaming_clips import Clip, cut, read_clips
from moulin.evaluate.streaming_load import Pace
from moulin.evaluate.targets.registry import target
from moulin.evaluate.targets.target import ServerSettings
from moulin.launch.server import TritonServer
from moulin.models.engine_choice import EngineChoice
from tests.bundles import BUNDLES


@pytest.fixture(scope="module")
def spec() -> OnnxModelSpec:
    return load_bundle(BUNDLES / "zipformer2-streaming", expect="streaming")


@pytest.fixture(scope="module")
def speech(spec: OnnxModelSpec) -> list[Clip]:
    """Two recordings of a good second, of lengths that are no whole chunks."""
    assert spec.streaming is not None
    waveforms = [read_audio(clip.audio)[8000:28123] for clip in demo_clips()[:2]]
    return [cut(waveform, "ONE", spec.streaming, 5120) for waveform in waveforms]


@pytest.mark.triton
@pytest.mark.parametrize(
    "name",
    [
        "moulin",
        "moulin-triton-http",
        "moulin-triton-grpc-int16",
        "moulin-triton-bundle",
        "moulin-gateway",
        "sherpa-onnx",
        "sherpa-onnx-server",
        "echo",
        "idle-gateway-unary",
    ],
)
def test_every_step_of_every_stream_is_answered(name: str, spec: OnnxModelSpec, speech: list[Clip]) -> None:
    load = streams_plan(speech, 3, Pace(5120, seconds=2.5, warmup_sec=0.5))
    with target(name, "streams")(spec, ServerSettings(EngineChoice(threads=1))) as running:
        run = asyncio.run(run_plan(name, running, load, str.upper))
    measurement = run.measurement
    assert measurement.failures == ()
    assert measurement.finished >= 3
    assert len(measurement.latency) > 3
    assert measurement.usage.server_cpu_sec is not None
    assert measurement.usage.server_cpu_sec > 0 or name == "echo"  # which may need less than a tick of the clock
    assert measurement.usage.peak_memory_bytes > 10_000_000
    assert len(run.lines()) == len(run.records)
    if measurement.statistics:
        assert measurement.statistics.requests == measurement.requests > 0


@pytest.mark.triton
def test_streams_of_several_processes_to_a_server_that_runs(server: TritonServer) -> None:
    """Without its model; sequences of one generator are not those of another."""
    clips = read_clips(demo_clips()[:3], None, 5120)
    load = streams_plan(clips, 5, Pace(5120, seconds=1.5, warmup_sec=0.5, jitter_sec=0.1), generators=2)
    name = f"triton-grpc={server.grpc_url}/transducer_streaming"
    with target(name, "streams")(None, ServerSettings(EngineChoice(threads=1))) as running:
        run = asyncio.run(run_plan(name, running, load, str.upper))
    measurement = run.measurement
    assert measurement.failures == ()
    assert len(run.records) == 5
    assert len(measurement.latency) > 10
    assert measurement.statistics is not None
    assert measurement.statistics.requests == measurement.requests > 20
    assert measurement.generator_cpu_sec > 0


def test_a_target_in_this_process_takes_one_generator(spec: OnnxModelSpec, speech: list[Clip]) -> None:
    load = streams_plan(speech, 2, Pace(5120, seconds=1), generators=2)
    refused = pytest.raises(OptionsError, match="takes one load generator")
    with target("moulin", "streams")(spec, ServerSettings(EngineChoice(threads=1))) as running, refused:
        asyncio.run(run_plan("moulin", running, load, str.upper))
