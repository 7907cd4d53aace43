"""Hotwords of requests and streams on the real tritonserver."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moulin.client import Client
from moulin.errors import RequestRefused
from moulin.launch.server import TritonServer
from moulin.live_transcript import LiveTranscript
from moulin.stream_audio import cut, stream_to_server
from moulin.triton_repo.contract import MODEL_NAME
from tests.conftest import Recording

pytestmark = pytest.mark.triton

ZERO = {"hotwords": [{"phrase": "zero", "score": 8}]}
"""The first recording says ONE ZERO, and is heard as ONE THREE."""


def test_each_request_has_its_own(server: TritonServer, recordings: list[Recording]) -> None:
    """Requests that Triton may hand over together."""
    asked: list[dict[str, Any]] = [{}, ZERO, {"hotwords": ["six", "zero eight"]}, {"method": "modified_beam_search"}]
    with Client(server.grpc_url) as client, ThreadPoolExecutor(8) as threads:

        def second_word(number: int) -> str:
            return client.transcribe(recordings[0].waveform, **asked[number % 4]).text.split()[1]

        assert list(threads.map(second_word, range(16))) == ["THREE", "ZERO", "THREE", "THREE"] * 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"hotwords": ["zero", "½"]}, "'½' cannot be spelt in the model's vocabulary: it has no '½'"),
        ({"hotwords": "zero"}, "Expected hotwords to be a list of phrases, got 'zero'"),
        ({"hotwords": ["zero"] * 1001}, "at most 1,000 hotwords in a request, got 1,001"),
        ({"hotwords": ["zero"], "hotwords_method": "refuse"}, "modified_beam_search with hotwords, got greedy"),
    ],
)
def test_refusals(server: TritonServer, recordings: list[Recording], options: dict[str, Any], match: str) -> None:
    with Client(server.grpc_url) as client, pytest.raises(RequestRefused, match=match):
        client.transcribe(recordings[0].waveform, **options)
    with pytest.raises(RequestRefused, match=match):
        heard(server, recordings[0], options)


def heard(server: TritonServer, recording: Recording, options: dict[str, Any]) -> str:
    live = LiveTranscript()
    for update in stream_to_server(cut(recording.waveform, 320), server.grpc_url, model=MODEL_NAME, options=options):
        live.apply(update)
    return live.text


def test_each_stream_has_its_own(server: TritonServer, recordings: list[Recording]) -> None:
    plain = heard(server, recordings[0], {"method": "modified_beam_search"})
    biased = heard(server, recordings[0], {"hotwords": [{"phrase": "one zero", "score": 8}]})
    assert plain.split()[1] != "ZERO" == biased.split()[1]
    assert heard(server, recordings[0], {"method": "modified_beam_search"}) == plain
