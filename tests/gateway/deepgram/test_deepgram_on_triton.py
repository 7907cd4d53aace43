"""Deepgram's protocol on the gateway and the real tritonserver, by its own client and by plain ones."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import av
import httpx
import numpy as np
import pytest
import soundfile
import websockets.exceptions
from websockets.sync.client import ClientConnection, connect

from moulin.arrays import Floats
from moulin.launch.server import TritonServer
from moulin.transcript import Transcript
from tests.cli.command import eventually
from tests.conftest import Recording
from tests.gateway.running_gateway import running_gateway

pytestmark = pytest.mark.triton

KEY = {"authorization": "Token secret"}
RAW = "encoding=linear16&sample_rate=16000"
LONG_PAUSE = f"{RAW}&endpointing=1200"
CLOSE = '{"type": "CloseStream"}'


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    limits: dict[str, Any] = {"max_streams": 3, "max_upload_bytes": 1_000_000, "stream_idle_sec": 3.0}
    with running_gateway(server.grpc_url, api_keys=("secret",), **limits) as address:
        yield address


def pcm(samples: Floats) -> bytes:
    return bytes(np.rint(samples * 32768).clip(-32768, 32767).astype("<i2").tobytes())


def coded(samples: Floats, form: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=form, subtype=subtype)
    return file.getvalue()


def webm(samples: Floats, tracks: int = 1) -> bytes:
    """As a browser records it: Opus in a WebM file that cannot be sought in."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm", options={"live": "1"}) as container:
        streams = [container.add_stream("libopus", rate=48_000, layout="mono") for _ in range(tracks)]
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = 16_000
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            for stream in streams:
                container.mux(stream.encode(resampled))
        for stream in streams:
            container.mux(stream.encode(None))
    return file.getvalue()


def listen(gateway: str, body: bytes, query: str = "", **headers: str) -> httpx.Response:
    url = f"http://{gateway}/v1/listen?model=nova-3&{query}"
    return httpx.post(url, content=body, headers=KEY | headers, timeout=60)


def connected(gateway: str, query: str = "", **options: Any) -> ClientConnection:
    given: dict[str, Any] = {"additional_headers": KEY} | options
    opened: ClientConnection = connect(f"ws://{gateway}/v1/listen?model=nova-3&{query}", **given)
    return opened


def streamed(gateway: str, data: bytes, query: str, step: int = 3200) -> list[dict[str, Any]]:
    """The events for `data`, sent in messages of `step` bytes."""
    with connected(gateway, query) as socket:

        def speak() -> None:
            for at in range(0, len(data), step):
                socket.send(data[at : at + step])
            socket.send(CLOSE)

        speaking = threading.Thread(target=speak)
        speaking.start()
        events = [json.loads(message) for message in socket]
        speaking.join()
        return events


def rest_of(socket: ClientConnection) -> list[dict[str, Any]]:
    """The events until the connection is closed, however it is."""
    events = []
    try:
        while True:
            events.append(json.loads(socket.recv(30)))
    except websockets.exceptions.ConnectionClosed:
        return events


def finals(events: list[dict[str, Any]]) -> str:
    texts = [
        event["channel"]["alternatives"][0]["transcript"]
        for event in events
        if event["type"] == "Results" and event["is_final"]
    ]
    return " ".join(filter(None, texts))


def test_a_recording(gateway: str, recordings: list[Recording]) -> None:
    for recording in recordings[:3]:
        body = recording.file.read_bytes()
        response = listen(gateway, body)
        assert response.status_code == 200
        found = response.json()
        (channel,) = found["results"]["channels"]
        (alternative,) = channel["alternatives"]
        assert alternative["transcript"] == recording.text
        words = recording.heard.words
        assert [word["word"] for word in alternative["words"]] == [word.word for word in words]
        assert [word["start"] for word in alternative["words"]] == [word.start_sec for word in words]
        assert [word["end"] for word in alternative["words"]] == [word.end_sec for word in words]
        metadata = found["metadata"]
        assert metadata["duration"] == pytest.approx(len(recording.waveform) / 16_000, abs=0.001)
        assert metadata["sha256"] == hashlib.sha256(body).hexdigest()
        assert metadata["request_id"] == response.headers["dg-request-id"] == response.headers["x-request-id"]
        assert metadata["model_info"][metadata["models"][0]]["name"] == "transducer"
        assert "utterances" not in found["results"]


@pytest.mark.parametrize(
    ("form", "subtype", "query"),
    [
        ("WAV", "PCM_16", ""),
        ("WAV", "PCM_16", RAW),  # the header is believed
        ("FLAC", "PCM_16", RAW),
        ("OGG", "OPUS", "encoding=ogg-opus"),
        ("RAW", "PCM_16", RAW),
        ("RAW", "FLOAT", "encoding=linear32&sample_rate=16000"),
        ("RAW", "ULAW", "encoding=mulaw&sample_rate=16000"),
        ("RAW", "ALAW", "encoding=alaw&sample_rate=16000"),
    ],
)
def test_forms_of_recordings(gateway: str, recordings: list[Recording], form: str, subtype: str, query: str) -> None:
    samples = recordings[0].waveform
    as_file = coded(samples, "WAV" if form == "RAW" else form, subtype)
    expected = listen(gateway, as_file).json()["results"]
    found = listen(gateway, coded(samples, form, subtype), query)
    assert found.json()["results"] == expected
    assert found.json()["results"]["channels"][0]["alternatives"][0]["words"]


def test_utterances_paragraphs_and_channels(gateway: str, recordings: list[Recording]) -> None:
    left, right = recordings[0], recordings[1]
    silence = np.zeros(48_000, np.float32)
    one = np.concatenate([left.waveform, silence, right.waveform])
    results = listen(gateway, coded(one, "FLAC", "PCM_16"), "utterances=true&paragraphs=true&utt_split=2").json()[
        "results"
    ]
    alternative = results["channels"][0]["alternatives"][0]
    first, second = results["utterances"]
    assert f"{first['transcript']} {second['transcript']}" == alternative["transcript"]
    assert second["start"] - first["end"] > 2
    assert [paragraph["sentences"][0]["text"] for paragraph in alternative["paragraphs"]["paragraphs"]] == [
        first["transcript"],
        second["transcript"],
    ]
    assert alternative["paragraphs"]["transcript"] == f"{first['transcript']}\n\n{second['transcript']}"

    shortest = min(len(left.waveform), len(right.waveform))
    both = np.stack([left.waveform[:shortest], right.waveform[:shortest]], axis=1)
    found = listen(gateway, coded(both, "FLAC", "PCM_16"), "multichannel=true&utterances=true").json()
    assert found["metadata"]["channels"] == 2
    alone = [
        listen(gateway, coded(both[:, side], "FLAC", "PCM_16")).json()["results"]["channels"][0]["alternatives"][0]
        for side in (0, 1)
    ]
    said = [channel["alternatives"][0]["transcript"] for channel in found["results"]["channels"]]
    assert said == [one["transcript"] for one in alone]
    assert {utterance["channel"] for utterance in found["results"]["utterances"]} == {0, 1}


@pytest.mark.parametrize(
    ("body", "query", "headers", "status", "message"),
    [
        (b'{"url": "https://x"}', "", {"content-type": "application/json"}, 415, "fetches nothing from elsewhere"),
        (b"--x", "", {"content-type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
        (b"x", "", {"content-encoding": "gzip"}, 415, "not compressed"),
        (b"", "", {}, 400, "Expected audio in the body, got none"),
        (b"no audio at all", "", {}, 400, "the audio"),
        (bytes(1_000_001), "", {}, 413, "at most 1000000 bytes"),
        (b"x", "diarize=true", {}, 400, "no model here tells speakers apart"),
        (b"x", "utt_split=never", {}, 400, "Expected utt_split to be a number"),
        (b"x", "keyterm=%E6%BC%A2%E5%AD%97", {}, 400, ""),
    ],
)
def test_recordings_that_are_refused(
    gateway: str, body: bytes, query: str, headers: dict[str, str], status: int, message: str
) -> None:
    response = listen(gateway, body, query, **headers)
    assert (response.status_code, set(response.json())) == (status, {"err_code", "err_msg", "request_id"})
    assert message in response.json()["err_msg"]
    assert response.headers["dg-error"]
    assert response.headers["dg-request-id"] == response.json()["request_id"]


def test_a_body_without_a_length_is_bounded_too(gateway: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100_000)

    response = httpx.post(f"http://{gateway}/v1/listen", content=parts(), headers=KEY, timeout=60)
    assert (response.status_code, response.json()["err_code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("scheme", ["Token", "token", "Bearer"])
def test_keys(gateway: str, scheme: str) -> None:
    headers = {"authorization": f"{scheme} secret"}
    assert httpx.post(f"http://{gateway}/v1/listen", headers=headers).status_code == 400
    with connect(f"ws://{gateway}/v1/listen?{RAW}", additional_headers=headers) as socket:
        socket.send(CLOSE)
        assert json.loads(socket.recv())["type"] == "Metadata"


@pytest.mark.parametrize("scheme", ["token", "bearer"])
def test_a_browsers_key(gateway: str, scheme: str) -> None:
    """By subprotocol, of which the key does not come back."""
    offered: Any = [scheme, "secret"]
    with connect(f"ws://{gateway}/v1/listen?{RAW}", subprotocols=offered) as socket:
        assert socket.subprotocol == scheme
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(f"ws://{gateway}/v1/listen?{RAW}", subprotocols=[scheme, "wrong"])  # type: ignore[list-item]
    assert caught.value.response.status_code == 401


def test_refusals_without_a_key_have_deepgrams_body(gateway: str) -> None:
    response = httpx.post(f"http://{gateway}/v1/listen", content=b"x")
    assert response.status_code == 401
    assert response.json()["err_code"] == "INVALID_AUTH"
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(f"ws://{gateway}/v1/listen")
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body or b"")["err_code"] == "INVALID_AUTH"


def test_the_next_version_is_refused_with_a_sentence(gateway: str) -> None:
    response = httpx.get(f"http://{gateway}/v2/listen", headers=KEY)
    assert response.status_code == 404
    assert "nova-3" in response.json()["err_msg"]
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(f"ws://{gateway}/v2/listen?model=flux", additional_headers=KEY)
    assert caught.value.response.headers["dg-error"].startswith("Expected /v1/listen, got /v2/listen")


def test_streams(gateway: str, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    for recording, heard in zip(recordings[:2], heard_live, strict=False):
        events = streamed(gateway, pcm(recording.waveform), f"{LONG_PAUSE}&interim_results=true")
        assert finals(events) == heard.text
        interim = [event for event in events if event["type"] == "Results" and not event["is_final"]]
        assert len(interim) > 3
        assert events[-1]["type"] == "Metadata"
        assert events[-1]["duration"] == pytest.approx(len(recording.waveform) / 16_000, abs=0.001)
        assert events[-1]["sha256"] == hashlib.sha256(pcm(recording.waveform)).hexdigest()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "webm"])
def test_containers_as_they_come(
    gateway: str, recordings: list[Recording], heard_live: list[Transcript], kind: str
) -> None:
    """Without a word about the audio, as browsers send it."""
    samples = recordings[0].waveform
    data = {
        "wav": lambda: coded(samples, "WAV", "PCM_16"),
        "flac": lambda: coded(samples, "FLAC", "PCM_16"),
        "ogg": lambda: coded(samples, "OGG", "OPUS"),
        "webm": lambda: webm(samples),
    }[kind]()
    events = streamed(gateway, data, "endpointing=1200&interim_results=true", step=len(data) // 30)
    said = finals(events).split()
    if kind in ("wav", "flac"):
        assert said == heard_live[0].text.split()
    else:  # Opus changes the sound
        assert len(set(said) & set(heard_live[0].text.split())) >= 5
    assert events[-1]["duration"] == pytest.approx(len(samples) / 16_000, abs=0.05)
    assert events[-1]["sha256"] == hashlib.sha256(data).hexdigest()


def test_finalize_in_the_middle_of_a_container(gateway: str, recordings: list[Recording]) -> None:
    data = coded(recordings[0].waveform, "WAV", "PCM_16")
    with connected(gateway) as socket:
        socket.send(data[:120_000])
        socket.send('{"type": "Finalize"}')
        events = [json.loads(socket.recv(30))]
        while not events[-1].get("from_finalize"):
            events.append(json.loads(socket.recv(30)))
        assert finals(events)
        ends_sec = events[-1]["start"] + events[-1]["duration"]
        assert ends_sec == pytest.approx((120_000 - 44) / 32_000, abs=0.01)
        socket.send(data[120_000:])
        socket.send(CLOSE)
        rest = [json.loads(message) for message in socket]
        assert finals(rest)
        assert rest[-1]["duration"] == pytest.approx(len(recordings[0].waveform) / 16_000, abs=0.001)


def test_a_container_of_which_nothing_comes(gateway: str) -> None:
    """Neither is it anything else that only looks like CloseStream."""
    with connected(gateway) as socket:
        socket.send('{"said": "CloseStream"}')
        assert "Expected a message of type" in json.loads(socket.recv(30))["description"]
        socket.send(CLOSE)
        events = rest_of(socket)
        assert socket.close_code == 1000
    assert [(event["type"], event["duration"]) for event in events] == [("Metadata", 0.0)]


def test_warnings_about_a_container(gateway: str, recordings: list[Recording]) -> None:
    events = streamed(gateway, webm(recordings[0].waveform[:32_000], tracks=2), "")
    assert events[-1]["type"] == "Metadata"
    (warning,) = events[-1]["warnings"]
    assert warning.startswith("there are 2 audio tracks, of which number 1 is heard")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes(20_000), "Expected audio in a container"),
        (b"\x01\x02", "Expected audio in a container"),
        (b"fLaC\x00\x00\x00\x22" + bytes(60_000), "the audio"),
    ],
)
def test_what_is_no_container(gateway: str, data: bytes, message: str) -> None:
    with connected(gateway) as socket:
        socket.send(data)
        socket.send(CLOSE)
        events = rest_of(socket)
        assert socket.close_code == 1008
    assert message in events[-1]["description"]
    assert eventually(lambda: active(gateway) == 0)


def active(gateway: str) -> float:
    lines = httpx.get(f"http://{gateway}/metrics", headers=KEY).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("moulin_gateway_active_streams "))


@pytest.mark.parametrize("query", [RAW, ""])
def test_a_client_that_leaves_frees_its_place(gateway: str, recordings: list[Recording], query: str) -> None:
    with connected(gateway, query) as socket:
        socket.send(coded(recordings[0].waveform, "WAV", "PCM_16")[:64_000])
        assert eventually(lambda: active(gateway) == 1)
    assert eventually(lambda: active(gateway) == 0)


def test_channels_take_a_place_each(gateway: str, recordings: list[Recording]) -> None:
    shortest = min(len(recording.waveform) for recording in recordings[:2])
    both = np.stack([recording.waveform[:shortest] for recording in recordings[:2]], axis=1)
    query = f"{LONG_PAUSE}&channels=2&multichannel=true"
    events = streamed(gateway, pcm(both), query, step=6400)
    for channel in (0, 1):
        alone = streamed(gateway, pcm(both[:, channel]), LONG_PAUSE)
        said = finals([event for event in events if event.get("channel_index") == [channel, 2]])
        assert said == finals(alone)
    with connected(gateway, query), pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connected(gateway, query)
    assert caught.value.response.status_code == 429
    assert json.loads(caught.value.response.body or b"")["err_code"] == "TOO_MANY_REQUESTS"


@pytest.mark.parametrize("query", ["encoding=linear16", f"{RAW}&diarize=true"])
def test_a_stream_that_is_refused_is_not_opened(gateway: str, query: str) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connected(gateway, query)
    assert caught.value.response.status_code == 400
    assert caught.value.response.headers["dg-error"]


def test_words_that_the_model_cannot_spell(gateway: str) -> None:
    with connected(gateway, f"{RAW}&keyterm=%E6%BC%A2%E5%AD%97") as socket:
        socket.send(bytes(32_000))
        (error,) = rest_of(socket)
    assert error["type"] == "Error"
    assert "漢字" in error["description"]


def test_what_is_ignored_is_named(gateway: str, recordings: list[Recording]) -> None:
    query = "smart_format=true&punctuate=false&nothing=1"
    response = listen(gateway, coded(recordings[0].waveform, "FLAC", "PCM_16"), query)
    assert response.headers["x-moulin-ignored"] == "smart_format, nothing"
    with connected(gateway, f"{RAW}&{query}") as socket:
        assert socket.response is not None
        assert socket.response.headers["x-moulin-ignored"] == "smart_format, nothing"
        assert socket.response.headers["dg-request-id"]


def test_a_line_on_which_nothing_comes(gateway: str) -> None:
    with connected(gateway, RAW) as socket:
        error = json.loads(socket.recv(20))
        assert "Nothing has come for 3 s" in error["description"]
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            socket.recv(20)
        assert socket.close_code == 1011
        assert socket.close_reason is not None
        assert socket.close_reason.startswith("NET-0001")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What is closed at the end of the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.needs("deepgram")
@pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")
def test_deepgrams_own_client(
    gateway: str, recordings: list[Recording], heard_live: list[Transcript], opened: ExitStack
) -> None:
    from deepgram import DeepgramClient
    from deepgram.core.api_error import ApiError
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment

    http, ws = f"http://{gateway}", f"ws://{gateway}"
    place = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
    pool = opened.enter_context(httpx.Client())  # which the client itself would leave open
    client = DeepgramClient(api_key="secret", environment=place, httpx_client=pool)
    response: Any = client.listen.v1.media.transcribe_file(
        request=recordings[0].file.read_bytes(), model="nova-3", smart_format=True, utterances=True
    )
    assert response.results.channels[0].alternatives[0].transcript == recordings[0].text
    with pytest.raises(ApiError) as caught:
        client.listen.v1.media.transcribe_url(url="https://example.com/a.wav", model="nova-3")
    assert caught.value.status_code == 415

    messages: list[Any] = []
    options: Any = {"encoding": "linear16", "sample_rate": 16_000, "interim_results": True, "endpointing": 1200}
    with client.listen.v1.connect(model="nova-3", **options) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        connection.send_keep_alive()
        data = pcm(recordings[0].waveform)
        for at in range(0, len(data), 3200):
            connection.send_media(data[at : at + 3200])
        connection.send_finalize()
        connection.send_close_stream()
        listening.join(60)
    results = [message for message in messages if message.type == "Results"]
    said = [result.channel.alternatives[0].transcript for result in results if result.is_final]
    assert " ".join(filter(None, said)) == heard_live[0].text
    assert any(result.from_finalize for result in results)
    assert messages[-1].type == "Metadata"
