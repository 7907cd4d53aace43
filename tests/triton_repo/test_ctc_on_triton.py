"""Blank skipping and CTC heads on the real tritonserver, from the commands that build a repository to the text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.client import Client
from moulin.decoding.options import DecodingOptions
from moulin.errors import RequestRefused
from moulin.evaluate.manifest import demo_clips
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.live_transcript import LiveTranscript
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES
from tests.cli.command import moulin_here
from tests.engine.blank_bias import OFFLINE, STREAMING, Utterance, bias_for, raised_export

pytestmark = [pytest.mark.triton, pytest.mark.needs("torch")]
SKIP = DecodingOptions(blank_skip=0.95)
ENSEMBLE = ["--layout", "ensemble"]


@dataclass(frozen=True)
class Served:
    server: TritonServer
    both: Path
    both_live: Path
    ctc: Path
    waveforms: list[Floats]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    to = tmp_path_factory.mktemp("served")
    waveforms = [read_audio(clip.audio)[:50_000] for clip in demo_clips()[:3]]
    bias = bias_for(0.6, Utterance(waveforms[0]).log_probs)
    both, both_live = raised_export(OFFLINE, bias, to / "both"), raised_export(STREAMING, bias, to / "both-live")
    ctc = to / "ctc"
    ctc.mkdir()
    for file in ("model.onnx", "tokens.txt"):
        shutil.copyfile(OFFLINE / file, ctc / file)
    for model, name, more in (
        (both, "skipping", ["--blank-skip", 0.95]),
        (both, "plain", []),
        (both_live, "skipping_live", ["--blank-skip", 0.95]),
        (ctc, "ctc", ["--method", "modified_beam_search"]),
        (both, "both_ctc", ["--head", "ctc"]),
        (both_live, "ctc_live", ["--head", "ctc"]),
        (BUNDLES / "zipformer2-offline", "without", []),
    ):
        moulin_here("repo", "build", model, "--to", to / "repository", "--name", name, *more).expect(0)
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(to / "repository", options) as running:
        running.wait_ready()
        yield Served(running, both, both_live, ctc, waveforms)
        assert running.poll() is None, "tritonserver died during the tests"


def texts_here(served: Served, model: Path, options: DecodingOptions, engine: EngineChoice | None = None) -> list[str]:
    with open_recognizer(model, engine or EngineChoice(), options=options) as recognizer:
        return [transcript.text for transcript in recognizer.transcribe(served.waveforms)]


def texts_there(served: Served, name: str, **changes: Any) -> list[str]:
    with Client(served.server.grpc_url, model=name) as client:
        return [client.transcribe(waveform, **changes).text for waveform in served.waveforms]


def live_here(served: Served, options: StreamOptions, engine: EngineChoice | None = None) -> list[str]:
    texts = []
    recognizer = open_stream_recognizer(served.both_live, engine or EngineChoice(), options=options, max_streams=1)
    for waveform in served.waveforms:
        stream = recognizer.open()
        recognizer.accept(stream, waveform)
        recognizer.finish(stream)
        live = LiveTranscript()
        live.apply(recognizer.advance(stream))
        texts.append(live.transcript().text)
        recognizer.close(stream)
    return texts


def live_there(served: Served, name: str, **changes: Any) -> list[str]:
    texts = []
    with Client(served.server.grpc_url, model=name) as client:
        for waveform in served.waveforms:
            with client.stream(**changes) as stream:
                for first in range(0, len(waveform), 5_120):
                    stream.send(waveform[first : first + 5_120])
                texts.append(stream.finish().text)
    return texts


def test_a_server_that_skips(served: Served) -> None:
    skipping, plain = texts_here(served, served.both, SKIP), texts_here(served, served.both, DecodingOptions())
    assert skipping != plain
    assert texts_there(served, "skipping") == skipping
    assert texts_there(served, "skipping", blank_skip=None) == plain
    assert texts_there(served, "plain") == plain
    assert texts_there(served, "plain", blank_skip=0.95) == skipping
    beam = DecodingOptions("modified_beam_search", blank_skip=0.95)
    assert texts_there(served, "skipping", method="modified_beam_search") == texts_here(served, served.both, beam)


def test_streams_that_skip(served: Served) -> None:
    skipping, plain = live_here(served, StreamOptions(SKIP)), live_here(served, StreamOptions())
    assert skipping != plain
    assert live_there(served, "skipping_live") == skipping
    assert live_there(served, "skipping_live", blank_skip=None) == plain


def test_ctc_heads(served: Served) -> None:
    beam = DecodingOptions("modified_beam_search")
    assert texts_there(served, "ctc") == texts_here(served, served.ctc, beam)
    assert texts_there(served, "ctc", method="greedy") == texts_here(served, served.ctc, DecodingOptions())
    by_head = EngineChoice(head="ctc")
    assert texts_there(served, "both_ctc") == texts_here(served, served.both, DecodingOptions(), by_head)
    assert live_there(served, "ctc_live") == live_here(served, StreamOptions(), by_head)
    assert live_there(served, "ctc_live", method="modified_beam_search") == live_here(
        served, StreamOptions(beam), by_head
    )


def test_who_asks_for_what_is_not_there_is_told_and_nobody_else(served: Served) -> None:
    wanted = texts_there(served, "without")
    with Client(served.server.grpc_url, model="without") as client:
        with pytest.raises(RequestRefused, match="needs a CTC head"):
            client.transcribe(served.waveforms[0], blank_skip=0.9)
        with pytest.raises(RequestRefused, match="above 0 and below 1"):
            client.transcribe(served.waveforms[0], blank_skip=7)
    with Client(served.server.grpc_url, model="ctc_live") as client:
        refused = pytest.raises(RequestRefused, match="CTC head itself is decoded")
        with refused, client.stream(blank_skip=0.9) as stream:
            stream.send(served.waveforms[0])
    assert texts_there(served, "without") == wanted


def test_a_repository_that_could_not_skip_is_not_built(tmp_path: Path) -> None:
    build = ("repo", "build", "--to", tmp_path)
    refused = moulin_here(*build, BUNDLES / "zipformer2-offline", "--blank-skip", 0.95).expect(1)
    assert "needs a CTC head beside the transducer" in refused.err
    refused = moulin_here(*build, OFFLINE, "--blank-skip", 0.95).expect(1)  # Icefall's export: in another encoder
    assert "moulin export" in refused.err
    refused = moulin_here(*build, OFFLINE, "--blank-skip", 0.95, *ENSEMBLE).expect(1)
    assert "needs a CTC head beside the transducer" in refused.err
    assert not list(tmp_path.iterdir())
