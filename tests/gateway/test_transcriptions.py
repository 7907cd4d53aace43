"""`POST /v1/audio/transcriptions` on the real Triton, with OpenAI's own client and without it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile

from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL
from moulin.launch.server import TritonServer
from moulin.models.open_recognizer import open_recognizer
from moulin.transcript import Transcript
from tests.audio.media import Track, media
from tests.cli.command import eventually
from tests.conftest import TINY_MODEL, Recording

from .running_gateway import running_gateway

pytestmark = pytest.mark.triton
TRANSCRIPTIONS = "/v1/audio/transcriptions"
TRANSCRIBED = 'moulin_gateway_audio_seconds_total{kind="recording"}'


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    with running_gateway(server.grpc_url, max_upload_bytes=8_000_000, max_audio_sec=600) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def client(gateway: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="unused", max_retries=0) as connected:
        yield connected


@pytest.fixture(scope="module")
def long_file(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nearly two minutes: more than the model takes at once."""
    silence = np.zeros(32000, np.float32)
    file = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(file, np.concatenate([part for r in recordings for part in (r.waveform, silence)]), 16000)
    return file


def test_the_models(client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert set(models) >= {"transducer", "transducer_streaming", TINY_MODEL}
    assert client.models.retrieve("transducer") == models["transducer"]
    described = models["transducer_streaming"].to_dict()
    assert described.pop("created") == models["transducer_streaming"].created > 1.7e9
    assert described == {
        "id": "transducer_streaming",
        "object": "model",
        "owned_by": "moulin",
        "served_as": "transducer_streaming",
        "streaming": True,
        "bundle": "digits-en-streaming",
        "languages": ["en"],
        "sample_rate": 16000,
        "description": "English digits, a demo",
        "hotwords": True,
        "alternatives": True,
    }
    for alias in ("whisper-1", "gpt-transcribe", "openai/whisper-large-v3"):
        assert client.models.retrieve(alias) == models["transducer"].model_copy(update={"id": alias})
    live = client.models.retrieve("gpt-live-transcribe")
    assert live == models["transducer_streaming"].model_copy(update={"id": "gpt-live-transcribe"})
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_a_streaming_model_hears_recordings(
    client: openai.OpenAI, recordings: list[Recording], heard_live: list[Transcript], long_file: Path
) -> None:
    """Through a stream, in every format, with times from the beginning, and deltas for each segment."""
    model = "transducer_streaming"
    create = client.audio.transcriptions.create
    assert create(file=recordings[0].file, model=model).text == heard_live[0].text
    assert create(file=recordings[0].file, model=model, response_format="text") == heard_live[0].text + "\n"
    heard = create(
        file=recordings[0].file,
        model=model,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert heard.words is not None
    assert [(w.word, w.start, w.end) for w in heard.words] == [
        (w.word, w.start_sec, w.end_sec) for w in heard_live[0].words
    ]
    assert create(file=recordings[0].file, model=model, response_format="srt").startswith("1\n00:00:00,")
    beam = create(file=recordings[0].file, model=model, extra_body={"method": "modified_beam_search", "beam": 2})
    assert beam.text.startswith("ONE THREE")

    events = list(create(file=long_file, model=model, stream=True))
    *deltas, done = events
    assert len(deltas) >= 14
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == done.text
    assert len(done.text.split()) > 120


def test_many_recordings_by_streams_at_once(
    client: openai.OpenAI, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    def one(number: int) -> str:
        return client.audio.transcriptions.create(file=recordings[number].file, model="transducer_streaming").text

    with ThreadPoolExecutor(14) as threads:
        assert list(threads.map(one, range(14))) == [heard.text for heard in heard_live]


def test_channels_and_pauses_by_streams(
    gateway: str, recordings: list[Recording], heard_live: list[Transcript], tmp_path: Path
) -> None:
    """Each channel, and what follows a pause of three minutes, goes through a stream of its own."""
    one, other = (recording.waveform for recording in recordings[:2])

    def words(content: bytes, **fields: str) -> list[dict[str, Any]]:
        data = {"model": "transducer_streaming", "response_format": "verbose_json", **fields}
        data["timestamp_granularities[]"] = "word"
        answer = httpx.post(f"{gateway}{TRANSCRIPTIONS}", files={"file": ("a", content)}, data=data, timeout=60)
        found: list[dict[str, Any]] = answer.json()["words"]
        return found

    length = max(len(one), len(other))
    soundfile.write(tmp_path / "call.wav", np.stack([np.resize(w, length) for w in (one, other)], axis=1), 16000)
    heard = words((tmp_path / "call.wav").read_bytes(), channels="each")
    assert {word["channel"] for word in heard} == {1, 2}
    gap = Track(np.concatenate([one, other]), gap_at_sec=len(one) / 16000, gap_sec=180)
    heard = words(media("webm", "libopus", gap))
    after = [word for word in heard if word["start"] > 180]
    assert abs(len(after) - len(heard_live[1].words)) <= 2
    assert after[0]["start"] == pytest.approx(len(one) / 16000 + 180 + heard_live[1].words[0].start_sec, abs=0.2)


def test_what_is_no_audio_for_a_streaming_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(file=("a.wav", b"no audio" * 100), model="transducer_streaming")
    assert caught.value.code == "invalid_audio"


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "transducer"])
def test_json(client: openai.OpenAI, recordings: list[Recording], model: str) -> None:
    heard = client.audio.transcriptions.create(file=recordings[0].file, model=model)
    assert heard.text == recordings[0].text
    assert heard.usage is not None
    assert heard.usage.type == "duration"
    assert heard.usage.seconds == 9  # of 8.1
    assert heard.logprobs is None


def test_text(client: openai.OpenAI, recordings: list[Recording]) -> None:
    text = client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1", response_format="text")
    assert text == recordings[0].text + "\n"


def test_subtitles(client: openai.OpenAI, recordings: list[Recording]) -> None:
    file, words = recordings[4].file, recordings[4].heard.words
    srt = client.audio.transcriptions.create(file=file, model="whisper-1", response_format="srt")
    vtt = client.audio.transcriptions.create(file=file, model="whisper-1", response_format="vtt")
    assert srt.startswith(f"1\n00:00:00,{round(words[0].start_sec * 1000):03} --> ")
    assert vtt.startswith(f"WEBVTT\n\n00:00:00.{round(words[0].start_sec * 1000):03} --> ")
    for subtitles in (srt, vtt):
        spoken = [line for line in subtitles.splitlines() if line[:1].isalpha() and line != "WEBVTT"]
        assert " ".join(spoken) == recordings[4].text


@pytest.mark.parametrize("wanted", [["word"], ["segment"], ["word", "segment"], None])
def test_verbose_json(client: openai.OpenAI, recordings: list[Recording], wanted: Any) -> None:
    options = {} if wanted is None else {"timestamp_granularities": wanted}
    heard = client.audio.transcriptions.create(
        file=recordings[0].file, model="whisper-1", response_format="verbose_json", language="en", **options
    )
    expected = recordings[0].heard
    assert (heard.text, heard.duration, heard.language) == (expected.text, expected.duration_sec, "en")
    if wanted and "word" in wanted:
        assert heard.words is not None
        spans = [(word.word, word.start, word.end) for word in heard.words]
        assert spans == [(word.word, word.start_sec, word.end_sec) for word in expected.words]
    else:
        assert heard.words is None
    if wanted is None or "segment" in wanted:
        assert heard.segments is not None
        assert " ".join(segment.text for segment in heard.segments) == expected.text
        assert [segment.id for segment in heard.segments] == list(range(len(heard.segments)))
        assert heard.segments[0].start == expected.words[0].start_sec
        assert -2 < heard.segments[0].avg_logprob < 0
    else:
        assert heard.segments is None


def test_log_probabilities(client: openai.OpenAI, recordings: list[Recording]) -> None:
    heard = client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1", include=["logprobs"])
    assert heard.logprobs is not None
    assert [entry.token for entry in heard.logprobs] == recordings[0].text.split()
    confidences = [word.confidence for word in recordings[0].heard.words]
    assert [np.exp(entry.logprob or 0) for entry in heard.logprobs] == pytest.approx(confidences, abs=1e-4)


def test_what_is_accepted_and_changes_nothing(client: openai.OpenAI, recordings: list[Recording]) -> None:
    heard = client.audio.transcriptions.create(
        file=recordings[0].file,
        model="whisper-1",
        language="en",
        prompt="numbers",
        temperature=0.5,
        chunking_strategy={"type": "server_vad", "threshold": 0.2},
        languages=["en", "de"],
        known_speaker_names=["Ann"],
        known_speaker_references=["data:audio/wav;base64,AA"],
        timestamp_granularities=["word"],
        extra_body={"seed": 7, "stream_options": {"include_usage": True}},
    )
    assert heard.text == recordings[0].text


def test_what_changes_nothing_is_named_in_a_header(client: openai.OpenAI, recordings: list[Recording]) -> None:
    create = client.audio.transcriptions.with_raw_response.create
    used = create(file=recordings[0].file, model="gpt-transcribe", language="en", keywords=["one", "two"])
    assert "x-moulin-ignored" not in used.headers
    unused = create(file=recordings[0].file, model="gpt-transcribe", temperature=0.1, extra_body={"seed": 7})
    assert unused.headers["x-moulin-ignored"] == "seed, temperature"
    events = create(file=recordings[0].file, model="gpt-transcribe", stream=True, extra_body={"user": "ann"})
    assert events.headers["x-moulin-ignored"] == "user"
    events.http_response.close()
    with pytest.raises(openai.BadRequestError, match="Expected a recording in en"):
        create(file=recordings[0].file, model="gpt-transcribe", language="de")


def test_fields_may_be_taken_strictly(server: TritonServer, recordings: list[Recording]) -> None:
    with running_gateway(server.grpc_url, strict_fields=True) as address:
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="unused", max_retries=0)
        assert client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1").text
        with pytest.raises(openai.BadRequestError, match="got 'seed'"):
            client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1", extra_body={"seed": 7})


def test_the_search_may_be_chosen(client: openai.OpenAI, recordings: list[Recording]) -> None:
    with open_recognizer(DEMO_MODEL) as recognizer:
        options = DecodingOptions(method="modified_beam_search", beam=8, blank_penalty=2.0)
        expected = recognizer.transcribe([recordings[0].waveform], [options])[0].text
    assert expected != recordings[0].text
    chosen = {"method": "modified_beam_search", "beam": 8, "blank_penalty": 2.0}
    heard = client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1", extra_body=chosen)
    assert heard.text == expected


def test_asyncio(gateway: str, recordings: list[Recording]) -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key="unused", max_retries=0) as client:
            heard = await asyncio.gather(
                *(client.audio.transcriptions.create(file=r.file, model="whisper-1") for r in recordings)
            )
            return [transcription.text for transcription in heard]

    assert asyncio.run(run()) == [recording.text for recording in recordings]


def test_a_stream_of_a_short_recording(client: openai.OpenAI, recordings: list[Recording]) -> None:
    first, last = client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1", stream=True)
    assert first.type == "transcript.text.delta"
    assert last.type == "transcript.text.done"
    assert first.delta == last.text == recordings[0].text


def test_a_stream_of_a_long_recording_comes_in_parts(client: openai.OpenAI, long_file: Path) -> None:
    *deltas, done = client.audio.transcriptions.create(file=long_file, model="whisper-1", stream=True)
    assert len(deltas) > 10
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == done.text
    whole = client.audio.transcriptions.create(
        file=long_file, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert whole.text == done.text
    assert whole.words is not None
    assert len(whole.words) > 120
    assert whole.duration == pytest.approx(soundfile.info(long_file).duration, abs=0.001)
    starts = [word.start for word in whole.words]
    assert starts == sorted(starts)
    assert starts[-1] > 100


@pytest.mark.parametrize("fields", [{}, {"channels": "each"}, {"model": "transducer_streaming"}], ids=str)
def test_a_stream_with_words_and_peaks(gateway: str, long_file: Path, tmp_path: Path, fields: dict[str, str]) -> None:
    """The words of the events are those of the whole, and the peaks those of all samples."""
    samples, _ = soundfile.read(long_file, dtype="float32")
    if "channels" in fields:
        samples = samples[: 40 * 16_000]
        soundfile.write(tmp_path / "two.flac", np.stack([samples, samples[::-1]], axis=1), 16_000)
        long_file = tmp_path / "two.flac"
    lists = {"timestamp_granularities[]": ["word", "segment"], "include[]": ["peaks"]}
    form = {"model": "transducer", "response_format": "verbose_json", "stream": "true", **lists, **fields}
    answer = httpx.post(gateway + TRANSCRIPTIONS, files={"file": long_file.read_bytes()}, data=form, timeout=120)
    *deltas, done = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert len(deltas) > 3
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    words = [word for delta in deltas for word in delta["words"]]
    order = sorted(words, key=lambda word: (word["start"], word["end"])) if "channels" in fields else words
    assert sorted(done["words"], key=lambda word: (word["start"], word["end"])) == order
    assert done["segments"]
    assert done["duration"] == pytest.approx(len(samples) / 16_000, abs=0.01)
    if "channels" in fields:
        assert {word["channel"] for word in words} == {1, 2}
        return
    assert "".join(delta["delta"] for delta in deltas) == done["text"]
    assert [delta["heard_sec"] for delta in deltas] == sorted(delta["heard_sec"] for delta in deltas)
    peaks = [part for event in (*deltas, done) for part in event.get("peaks", ())]
    found = np.concatenate([np.frombuffer(base64.b64decode(part["values"]), np.uint8) for part in peaks])
    assert [part["first"] for part in peaks[1:]] == list(
        np.cumsum([len(base64.b64decode(p["values"])) for p in peaks])
    )[:-1]
    frames = samples[: len(found) * 320].reshape(-1, 320)
    assert len(found) == len(samples) // 320
    np.testing.assert_allclose(found / 255, np.sqrt(np.abs(frames).max(axis=1)), atol=0.02)


def test_an_asynchronous_stream(gateway: str, recordings: list[Recording]) -> None:
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key="unused") as client:
            stream = await client.audio.transcriptions.create(file=recordings[1].file, model="whisper-1", stream=True)
            return [event.type async for event in stream]

    assert asyncio.run(run()) == ["transcript.text.delta", "transcript.text.done"]


@pytest.mark.parametrize(
    ("fields", "status", "code", "param", "message"),
    [
        ({}, 400, "missing_required_parameter", "model", "Expected a field 'model', got none"),
        ({"model": "nobody"}, 404, "model_not_found", "model", "There is no model 'nobody' for recordings"),
        ({"model": "m", "response_format": "xml"}, 400, "invalid_value", "response_format", "got 'xml'"),
        ({"model": "m", "temperature": "2"}, 400, "invalid_value", "temperature", "to be at most 1, got '2'"),
        ({"model": "m", "temperature": "nan"}, 400, "invalid_value", "temperature", "got 'nan'"),
        ({"model": "m", "stream": "perhaps"}, 400, "invalid_value", "stream", "got 'perhaps'"),
        ({"model": "m", "channel": "1"}, 400, "unknown_parameter", "channel", "Unknown parameter: 'channel'"),
        (
            {"model": "m", "stream": "true", "response_format": "srt"},
            *(400, None, "response_format", "Expected response_format json, text or verbose_json with stream=true"),
        ),
        ({"model": "whisper-1", "beam": "99"}, 400, "invalid_request", None, "Expected a beam of 1 to 32, got 99"),
        ({"model": "whisper-1", "method": "x"}, 400, "invalid_request", None, "Expected a decoding method of greedy"),
    ],
)
def test_fields_that_do_not_fit(
    gateway: str,
    recordings: list[Recording],
    fields: dict[str, str],
    status: int,
    code: str | None,
    param: str | None,
    message: str,
) -> None:
    answer = httpx.post(gateway + TRANSCRIPTIONS, files={"file": recordings[0].file.read_bytes()}, data=fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert message in error["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "talk.mp3 is empty (0 bytes), expected audio"),
        (b"<html>not found</html>", "talk.mp3 cannot be decoded as audio: libsndfile says"),
    ],
)
def test_files_that_are_no_audio(client: openai.OpenAI, content: bytes, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
        client.audio.transcriptions.create(file=("talk.mp3", content), model="whisper-1")
    assert (caught.value.code, caught.value.param) == ("invalid_audio", "file")


def test_bodies_that_are_no_form(gateway: str) -> None:
    for content, kind, status in (
        (b"{}", "application/json", 415),
        (b"", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=b", 400),
    ):
        answer = httpx.post(gateway + TRANSCRIPTIONS, content=content, headers={"content-type": kind})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
    for files, message in (
        ({"audio": b"x"}, "Unknown parameter: 'audio'"),
        ({"file": (None, b"x")}, "Expected a file in the field 'file', got text"),
        ({"language": (None, b"en")}, "Expected a file in the field 'file', got none"),
    ):
        answer = httpx.post(gateway + TRANSCRIPTIONS, files=files, data={"model": "whisper-1"})
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]


def test_translation_is_refused(gateway: str) -> None:
    answer = httpx.post(f"{gateway}/v1/audio/translations", files={"file": b"x"}, data={"model": "whisper-1"})
    assert answer.status_code == 404
    assert "use /v1/audio/transcriptions" in answer.json()["error"]["message"]
    assert httpx.get(gateway + TRANSCRIPTIONS).status_code == 405


def test_a_file_that_is_too_large_is_refused_before_it_has_come(gateway: str) -> None:
    """At once where its length is announced, and else when it goes on for too long: nothing hangs, nothing is kept."""
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    host, _, port = gateway.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as announced:
        announced.sendall(f"{head}Content-Length: 99000000\r\n\r\n".encode())
        answer = announced.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")

    def endless() -> Iterator[bytes]:
        yield part
        for _ in range(100):
            yield bytes(1_000_000)

    refused = httpx.post(
        gateway + TRANSCRIPTIONS, content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert refused.status_code == 413
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("file_too_large", "file")
    assert "at most 8000000 bytes" in error["message"]
    assert _unnamed_files() == []


def test_an_upload_that_does_not_end(server: TritonServer) -> None:
    """It holds a place, and must not do so for ever."""

    def trickle() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(20):  # the client sends it all before it reads the answer
            time.sleep(0.1)
            yield b"x"

    with running_gateway(server.grpc_url, max_upload_sec=0.5, max_requests=1) as address:
        url = f"http://{address}{TRANSCRIPTIONS}"
        slow = httpx.post(url, content=trickle(), headers={"content-type": "multipart/form-data; boundary=b"})
        assert slow.status_code == 408
        assert "Expected the upload to end within 0.5 s" in slow.json()["error"]["message"]
        assert httpx.post(url, files={"file": b"x"}, data={"model": "whisper-1"}).status_code == 400  # not 429


def test_hours_in_a_small_file_are_refused(gateway: str, tmp_path: Path) -> None:
    """A decompression bomb: 20 minutes of nothing are a hundred kilobytes of FLAC."""
    soundfile.write(tmp_path / "bomb.flac", np.zeros(20 * 60 * 16000, np.int16), 16000)
    assert (tmp_path / "bomb.flac").stat().st_size < 500_000
    answer = httpx.post(
        gateway + TRANSCRIPTIONS,
        files={"file": ("bomb.flac", (tmp_path / "bomb.flac").read_bytes())},
        data={"model": "whisper-1"},
        timeout=60,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "audio_too_long")
    assert "bomb.flac is too long: expected at most 600 s" in answer.json()["error"]["message"]


def test_damage_in_a_stream_is_an_event(gateway: str, recordings: list[Recording], tmp_path: Path) -> None:
    """The status has long been sent; OpenAI's client raises what the event says."""
    samples = np.tile(recordings[0].waveform, 8)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "broken.wav", samples, 16000, subtype="FLOAT")
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="unused", max_retries=0) as client:
        stream = client.audio.transcriptions.create(file=tmp_path / "broken.wav", model="whisper-1", stream=True)
        with pytest.raises(openai.APIError, match="expected finite samples, got nan"):
            list(stream)


def test_nothing_is_left_of_an_upload(client: openai.OpenAI, long_file: Path) -> None:
    client.audio.transcriptions.create(file=long_file, model="whisper-1")
    *_, done = client.audio.transcriptions.create(file=long_file, model="whisper-1", stream=True)
    assert done.type == "transcript.text.done"
    assert eventually(lambda: _unnamed_files() == []), _unnamed_files()


def test_who_hangs_up_is_not_worked_for(gateway: str, long_file: Path) -> None:
    audio_before = _metric(gateway, TRANSCRIBED)
    form: Any = {"files": {"file": long_file.read_bytes()}, "data": {"model": "whisper-1", "stream": "true"}}
    with httpx.stream("POST", gateway + TRANSCRIPTIONS, **form) as answer:
        next(answer.iter_bytes())
    form["data"] = {"model": "whisper-1"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(gateway + TRANSCRIPTIONS, **form, timeout=httpx.Timeout(30, read=0.2))
    assert eventually(lambda: _metric(gateway, "moulin_gateway_transcribing") == 0)
    assert eventually(lambda: _unnamed_files() == []), _unnamed_files()
    assert _metric(gateway, TRANSCRIBED) == audio_before


def test_the_request_id_comes_back(gateway: str, client: openai.OpenAI, recordings: list[Recording]) -> None:
    given = httpx.get(f"{gateway}/v1/models", headers={"x-request-id": "order-66"})
    assert given.headers["x-request-id"] == "order-66"
    odd = httpx.get(f"{gateway}/v1/models", headers={"x-request-id": "a b"})
    assert odd.headers["x-request-id"].startswith("req_")
    made = client.audio.transcriptions.with_raw_response.create(file=recordings[0].file, model="whisper-1")
    assert made.request_id is not None
    assert made.request_id.startswith("req_")


def test_metrics_and_health(gateway: str, client: openai.OpenAI, recordings: list[Recording]) -> None:
    before = _metric(gateway, TRANSCRIBED)
    client.audio.transcriptions.create(file=recordings[0].file, model="whisper-1")
    after = _metric(gateway, TRANSCRIBED)
    assert after - before == pytest.approx(recordings[0].heard.duration_sec, abs=0.001)
    answered = 'moulin_gateway_requests_total{method="POST",route="/v1/audio/transcriptions",status="200"}'
    assert _metric(gateway, answered) >= 1
    for name in ("uploads", "queued", "transcribing"):
        assert _metric(gateway, f"moulin_gateway_{name}") == 0
    assert httpx.get(f"{gateway}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{gateway}/readyz").json() == {"status": "ready"}


def test_a_full_house(server: TritonServer, long_file: Path) -> None:
    """With one place, the others are told to come again; what has been taken on is finished."""

    async def run(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as client:
            content = long_file.read_bytes()
            return await asyncio.gather(
                *(client.post(TRANSCRIPTIONS, files={"file": content}, data={"model": "whisper-1"}) for _ in range(4))
            )

    with running_gateway(server.grpc_url, max_requests=1) as address:
        answers = asyncio.run(run(address))
    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "server_busy"
            assert answer.json()["error"]["type"] == "rate_limit_error"


def _metric(gateway: str, name: str) -> float:
    for line in httpx.get(f"{gateway}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def _unnamed_files() -> list[str]:
    """What the gateway, which runs in this process, holds open of uploads; not what pytest holds of our output."""
    output = {str(Path(f"/proc/self/fd/{fd}").resolve()) for fd in (1, 2)}
    found = [str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()]
    return [file for file in found if file.startswith(f"{tempfile.gettempdir()}/#") and file not in output]


def test_json_of_unusual_characters_is_utf8() -> None:
    """SSE data of another script is readable as it stands."""
    from moulin.gateway.transcription_formats import delta_event

    assert delta_event("你好") == 'data: {"type": "transcript.text.delta", "delta": "你好"}\n\n'.encode()
    assert json.loads(delta_event("a\nb").decode().removeprefix("data: ")) == {
        "type": "transcript.text.delta",
        "delta": "a\nb",
    }


def test_each_channel_by_itself(gateway: str, recordings: list[Recording], tmp_path: Path) -> None:
    """Two talkers at once, one a channel."""
    one, other = recordings[0], recordings[1]
    length = max(len(one.waveform), len(other.waveform))
    both = np.stack([np.pad(r.waveform, (0, length - len(r.waveform))) for r in (one, other)], axis=1)
    soundfile.write(tmp_path / "call.wav", both, 16000)

    def post(**fields: str) -> httpx.Response:
        files = {"file": ("call.wav", (tmp_path / "call.wav").read_bytes())}
        return httpx.post(f"{gateway}{TRANSCRIPTIONS}", files=files, data={"model": "whisper-1", **fields}, timeout=60)

    assert post(channels="left").json()["text"] == one.text
    assert post(channels="2").json()["text"] == other.text
    heard = post(channels="each", response_format="verbose_json", **{"timestamp_granularities[]": "word"}).json()
    for number, recording in ((1, one), (2, other)):
        words = [word["word"] for word in heard["words"] if word["channel"] == number]
        assert " ".join(words) == recording.text
    for fields in ({"channels": "5th"}, {"track": "none"}, {"channels": "each", "stream": "true"}):
        refused = post(**fields)
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "channel" in post(channels="3").json()["error"]["message"]


def test_what_is_missing_is_said(gateway: str, recordings: list[Recording], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "cut.wav", recordings[0].waveform, 16000)
    content = (tmp_path / "cut.wav").read_bytes()[:-32000]

    def post(**fields: str) -> httpx.Response:
        files = {"file": ("cut.wav", content)}
        return httpx.post(f"{gateway}{TRANSCRIPTIONS}", files=files, data={"model": "whisper-1", **fields}, timeout=60)

    for fields in ({}, {"response_format": "verbose_json"}):
        (warning,) = post(**fields).json()["warnings"]
        assert "cut short" in warning
    events = post(stream="true").text
    assert "cut short" in events
    for format in ("json", "verbose_json", "text", "srt", "vtt"):
        answer = post(response_format=format)
        (warning,) = json.loads(answer.headers["x-moulin-warnings"])
        assert "cut short" in warning
        assert (f"\nNOTE {warning}\n" in answer.text) == (format == "vtt")


@pytest.fixture(scope="module")
def hours_of_nothing(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four hours of silence at 1 kHz, in 47 kB of FLAC."""
    file = tmp_path_factory.mktemp("hours") / "hours.flac"
    soundfile.write(file, np.zeros(4 * 3600 * 1000, np.float32), 1000)
    return file.read_bytes()


@pytest.mark.parametrize("stream", ["false", "true"])
def test_the_work_ends_with_the_client(
    server: TritonServer, hours_of_nothing: bytes, recordings: list[Recording], stream: str
) -> None:
    """Clients that hang up after 0.3 s delay nobody."""
    with running_gateway(server.grpc_url) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as other:

        def transcribed() -> float:
            started = time.monotonic()
            content = recordings[0].file.read_bytes()
            answer = other.post(TRANSCRIPTIONS, files={"file": ("a.flac", content)}, data={"model": "whisper-1"})
            assert answer.json()["text"] == recordings[0].text
            return time.monotonic() - started

        usual = transcribed()
        for _ in range(6):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"http://{address}{TRANSCRIPTIONS}",
                    files={"file": ("hours.flac", hours_of_nothing)},
                    data={"model": "whisper-1", "stream": stream},
                    timeout=httpx.Timeout(10, read=0.3),
                ).raise_for_status()
        assert transcribed() < usual + 10
        assert eventually(is_quiet), "decoding goes on"


def is_quiet() -> bool:
    """Whether no process that decodes is using the CPU."""
    before = decoding_time()
    time.sleep(0.1)
    return decoding_time() == before


def decoding_time() -> dict[str, int]:
    """The CPU time of each process that decodes for this one; their parent is the server that forks them."""
    processes = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"moulin.isolated_decoding.fork_server" in (process / "cmdline").read_bytes():
                processes[process.name] = (process / "stat").read_text().rpartition(")")[2].split()
    ours = {name for name, stat in processes.items() if stat[1] == str(os.getpid())}
    return {name: int(stat[11]) + int(stat[12]) for name, stat in processes.items() if stat[1] in ours}
