"""Alternatives of requests and streams on the real tritonserver."""

from __future__ import annotations

import pytest

from moulin.client import Client
from moulin.errors import RequestRefused
from moulin.launch.server import TritonServer
from moulin.live_transcript import LiveTranscript
from moulin.stream_audio import cut, stream_to_server
from moulin.triton_repo.contract import MODEL_NAME
from tests.conftest import Recording

pytestmark = pytest.mark.triton


def test_recordings(server: TritonServer, recordings: list[Recording]) -> None:
    with Client(server.grpc_url) as client:
        assert {model.name: model.gives_alternatives for model in client.models()}[client.model]
        plain = client.transcribe(recordings[0].waveform, method="modified_beam_search")
        heard = client.transcribe(recordings[0].waveform, nbest=4)
        assert (heard.text, heard.words, plain.alternatives) == (plain.text, plain.words, ())
        assert [one.text for one in heard.alternatives][:1] == [plain.text]
        assert len({one.text for one in heard.alternatives}) == 4
        with pytest.raises(RequestRefused, match="Expected nbest of 1 to 10, got 11"):
            client.transcribe(recordings[0].waveform, nbest=11)
        with pytest.raises(RequestRefused, match="Expected lm_scale 0, as there is no language model here"):
            client.transcribe(recordings[0].waveform, lm_scale=0.5)


def test_streams(server: TritonServer, recordings: list[Recording]) -> None:
    live = LiveTranscript()
    chunks = cut(recordings[0].waveform, 320)
    for update in stream_to_server(chunks, server.grpc_url, model=MODEL_NAME, options={"nbest": 3}):
        live.apply(update)
    assert live.final
    assert all(segment.alternatives[0].text == segment.text for segment in live.final)
    assert max(len(segment.alternatives) for segment in live.final) == 3
