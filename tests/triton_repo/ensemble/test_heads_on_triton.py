"""Blank skipping and CTC heads in the layout `ensemble` on the real tritonserver, beside the same in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.audio.decode import read_audio
from moulin.client import Client
from moulin.decoding.options import DecodingOptions
from moulin.errors import RequestRefused
from moulin.evaluate.manifest import demo_clips
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.cli.command import moulin_here
from tests.engine.blank_bias import OFFLINE, STREAMING, Utterance, bias_for, raised_export

from .test_streams import heard

pytestmark = [pytest.mark.triton, pytest.mark.needs("torch")]
BEAM = {"method": "modified_beam_search"}


def test_it_hears_what_the_process_hears(tmp_path: Path) -> None:
    """Recordings that skip, and recordings and streams whose head is decoded."""
    waveform = read_audio(demo_clips()[0].audio)[:50_000]
    both = raised_export(OFFLINE, bias_for(0.6, Utterance(waveform).log_probs), tmp_path / "both")
    build = ("repo", "build", "--layout", "ensemble", "--to", tmp_path / "repository")
    moulin_here(*build, both, "--name", "skipping", "--blank-skip", 0.95).expect(0)
    moulin_here(*build, OFFLINE, "--name", "ctc", "--head", "ctc").expect(0)
    moulin_here(*build, STREAMING, "--name", "ctc_live", "--head", "ctc").expect(0)
    free = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(tmp_path / "repository", free) as server:
        server.wait_ready()
        with Client(server.grpc_url, model="skipping") as client, open_recognizer(both) as here:
            for changes in ({}, {"blank_skip": None}, BEAM):
                options = DecodingOptions(blank_skip=0.95).updated(changes)
                assert client.transcribe(waveform, **changes).text == here.transcribe([waveform], [options])[0].text
            assert client.transcribe(waveform).text != client.transcribe(waveform, blank_skip=None).text
        head = EngineChoice(head="ctc", threads=1)
        with Client(server.grpc_url, model="ctc") as client, open_recognizer(OFFLINE, head) as here:
            for changes in ({}, BEAM):
                wanted = here.transcribe([waveform], [DecodingOptions().updated(changes)])[0].text
                assert client.transcribe(waveform, **changes).text == wanted != ""
            with pytest.raises(RequestRefused, match="CTC head itself is decoded"):
                client.transcribe(waveform, blank_skip=0.9)
        live = open_stream_recognizer(STREAMING, head, max_streams=1)
        with Client(server.grpc_url, model="ctc_live") as client:
            for changes in ({}, BEAM):
                with client.stream(**changes) as stream:
                    stream.send(waveform)
                    assert stream.finish().text == heard(live, waveform, changes) != ""
