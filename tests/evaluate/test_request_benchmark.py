"""Whole recordings to everything that takes them: the real services, engines and peers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import OnnxModelSpec
from moulin.demo.files import DEMO_MODEL
from moulin.errors import OptionsError
from moulin.evaluate.accuracy import Accuracy, measure_accuracy
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.request_benchmark import requests_plan
from moulin.evaluate.request_load import Arrivals, Workers
from moulin.evaluate.run import run_plan
from moulin.evaluate.streaming_clips import Clip, whole_clips
from moulin.evaluate.targets.registry import target
from moulin.evaluate.targets.target import ServerSettings
from moulin.evaluate.wer import digits_spelled_alike
from moulin.launch.server import TritonServer
from moulin.models.engine_choice import EngineChoice
from tests.bundles import BUNDLES

SETTINGS = ServerSettings(EngineChoice(threads=2))


@pytest.fixture(scope="module")
def spec() -> OnnxModelSpec:
    return load_bundle(DEMO_MODEL, expect="offline")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return whole_clips(demo_clips()[:3])


@pytest.mark.triton
@pytest.mark.parametrize(
    "name", ["moulin", "moulin-triton-grpc", "moulin-triton-http", "sherpa-onnx", "sherpa-onnx-server"]
)
def test_all_hear_the_same_in_the_demo_recordings(name: str, spec: OnnxModelSpec) -> None:
    """The reference figure of the model's card: 9 errors in 140 words, whoever runs it."""
    accuracy = Accuracy(name)
    with target(name, "requests")(spec, SETTINGS) as running:
        measure_accuracy(accuracy, running, demo_clips(), whole_clips, digits_spelled_alike, workers=8)
    assert accuracy.failed == []
    assert len(accuracy.scored) == 14
    assert (accuracy.words.errors, accuracy.words.words) == (9, 140)


@pytest.mark.triton
def test_tritons_own_count_agrees_with_the_generators(server: TritonServer, clips: list[Clip]) -> None:
    """Closed loop over gRPC and open loop over HTTP, warm-up included; nobody else uses the server meanwhile."""
    for address, shape, generators in (
        (f"triton-grpc={server.grpc_url}", Workers(4), 1),
        (f"triton-http={server.http_url}", Arrivals(8), 1),
        (f"triton-http={server.http_url}", Workers(3), 2),
    ):
        plan = requests_plan(clips, shape, seconds=1.5, warmup_sec=0.5, generators=generators)
        with target(address, "requests")(None, SETTINGS) as running:
            run = asyncio.run(run_plan(address, running, plan, digits_spelled_alike))
        measurement = run.measurement
        assert measurement.failures == ()
        assert measurement.statistics is not None
        assert measurement.statistics.requests == measurement.requests == len(run.records) > 3
        assert measurement.usage.server_cpu_sec is None
        assert not measurement.disturbed


@pytest.mark.triton
def test_options_reach_the_server(server: TritonServer) -> None:
    """By what it says of one that does not exist."""
    for kind, url in (("triton-grpc", server.grpc_url), ("triton-http", server.http_url)):
        accuracy = Accuracy(kind)
        settings = ServerSettings(EngineChoice(threads=1), decoding={"method": "guess"})
        with target(f"{kind}={url}", "requests")(None, settings) as running:
            measure_accuracy(accuracy, running, demo_clips()[:1], whole_clips, str.upper, workers=1)
        (failed,) = accuracy.failed
        assert "guess" in str(failed.failure)
        assert accuracy.words.words == 0


def test_every_generator_has_a_worker(clips: list[Clip]) -> None:
    with pytest.raises(OptionsError, match="Expected a worker at least for each of 3 generators, got 2"):
        requests_plan(clips, Workers(2), seconds=1, generators=3)


def test_what_cannot_be_read_is_a_failure_of_that_recording_alone(spec: OnnxModelSpec, tmp_path: Path) -> None:
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"fLaC, or is it?")
    utterances = [demo_clips()[0], replace(demo_clips()[1], id="broken", audio=broken), demo_clips()[2]]
    accuracy = Accuracy("moulin")
    with target("moulin", "requests")(spec, SETTINGS) as running:
        measure_accuracy(accuracy, running, utterances, whole_clips, digits_spelled_alike, workers=2)
    assert [it.id for it in accuracy.failed] == ["broken"]
    assert len(accuracy.answered) == 2


def test_a_recording_that_is_too_long_fails_alone_in_process(spec: OnnxModelSpec, clips: list[Clip]) -> None:
    too_long = np.tile(clips[0].chunks[0], 20)
    several = [clips[1], replace(clips[0], chunks=(too_long,), id="long"), clips[2]]
    accuracy = Accuracy("moulin")
    with target("moulin", "requests")(spec, SETTINGS) as running:
        measure_accuracy(accuracy, running, demo_clips()[:1], lambda _: several, digits_spelled_alike, workers=3)
    (failed,) = accuracy.failed
    assert failed.id == "long"
    assert "expected at most" in str(failed.failure)


@pytest.mark.needs("torch")
def test_a_checkpoint_runs_in_process_and_the_peer_refuses_it() -> None:
    spec = load_model(BUNDLES / "conformer-offline" / "epoch-1.pt")
    accuracy = Accuracy("moulin")
    with target("moulin", "requests")(spec, SETTINGS) as running:
        measure_accuracy(accuracy, running, demo_clips()[:1], whole_clips, str.upper, workers=1)
    assert accuracy.failed == []
    with pytest.raises(OptionsError, match="takes ONNX files"), target("sherpa-onnx", "requests")(spec, SETTINGS):
        pass
