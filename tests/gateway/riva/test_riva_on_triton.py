"""Riva's own client on the gateway and the real tritonserver."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.gateway.riva import messages
from moulin.launch.ports import claim_ports
from moulin.launch.server import TritonServer
from moulin.transcript import Transcript
from tests.cli.command import eventually
from tests.conftest import TINY_MODEL, Recording
from tests.gateway.running_gateway import running_gateway

pytestmark = [pytest.mark.triton, pytest.mark.needs("riva")]

TLS = Path(__file__).parents[2] / "data" / "tls"
STREAMING = f"/{messages.SERVICE}/StreamingRecognize"
CHUNK = 3200


class Riva:
    """A gateway, and Riva's client of it."""

    def __init__(self, port: int, http: str, **auth: Any) -> None:
        import riva.client

        self.address, self.http = f"localhost:{port}", f"http://{http}"
        self.asr = riva.client.ASRService(riva.client.Auth(uri=self.address, **auth))

    def config(self, **fields: Any) -> Any:
        from riva.client import RecognitionConfig

        return RecognitionConfig(**{"encoding": "LINEAR_PCM", "sample_rate_hertz": 16_000} | fields)

    def recognize(self, audio: bytes, **fields: Any) -> Any:
        return self.asr.offline_recognize(audio, self.config(**fields))

    def stream(self, chunks: Any, *, interim_results: bool = False, **fields: Any) -> Iterator[Any]:
        from riva.client import StreamingRecognitionConfig

        config = StreamingRecognitionConfig(config=self.config(**fields), interim_results=interim_results)
        for response in self.asr.streaming_response_generator(chunks, config):
            (result,) = response.results
            yield result

    def rest(self, file: bytes) -> str:
        """The text that OpenAI's API gives."""
        url, data = f"{self.http}/v1/audio/transcriptions", {"model": "whisper-1"}
        text: str = httpx.post(url, files={"file": file}, data=data, timeout=60).json()["text"]
        return text

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.http}/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


@contextmanager
def riva_gateway(server: TritonServer, *, auth: dict[str, Any] | None = None, **settings: Any) -> Iterator[Riva]:
    port = claim_ports("127.0.0.1", {"--riva-port": 0})["--riva-port"]
    with running_gateway(server.grpc_url, riva_port=port, **settings) as http:
        yield Riva(port, http, **auth or {})


@pytest.fixture(scope="module")
def riva(server: TritonServer) -> Iterator[Riva]:
    with riva_gateway(server, max_streams=2, max_upload_bytes=2_000_000, stream_idle_sec=3.0) as running:
        yield running


def pcm(samples: Floats) -> bytes:
    return bytes(np.rint(samples * 32768).clip(-32768, 32767).astype("<i2").tobytes())


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def coded(samples: Floats, form: str, subtype: str, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def test_the_models(riva: Riva) -> None:
    from riva.client.proto.riva_asr_pb2 import RivaSpeechRecognitionConfigRequest

    ask = riva.asr.stub.GetRivaSpeechRecognitionConfig
    found = {model.model_name: model.parameters for model in ask(RivaSpeechRecognitionConfigRequest()).model_config}
    assert found["transducer"] == {"type": "offline", "language_code": "en"}
    assert found["transducer_streaming"] == {"type": "online", "language_code": "en"}
    assert found[TINY_MODEL]["language_code"] == "und"
    (one,) = ask(RivaSpeechRecognitionConfigRequest(model_name="transducer")).model_config
    assert one.model_name == "transducer"


def test_recordings_have_the_text_that_rest_has(riva: Riva, recordings: list[Recording]) -> None:
    for recording in recordings[:4]:
        (result,) = riva.recognize(pcm(recording.waveform), enable_word_time_offsets=True, model="any").results
        (alternative,) = result.alternatives
        assert alternative.transcript == riva.rest(recording.file.read_bytes()) == recording.text
        words = recording.heard.words
        assert [word.word for word in alternative.words] == [word.word for word in words]
        assert [word.start_time for word in alternative.words] == [round(word.start_sec * 1000) for word in words]
        assert [word.end_time for word in alternative.words] == [round(word.end_sec * 1000) for word in words]
        confidences = [word.confidence for word in words]
        assert [word.confidence for word in alternative.words] == pytest.approx(confidences, abs=0.05)
        assert min(confidences) < alternative.confidence < max(confidences)
        assert result.audio_processed == pytest.approx(len(recording.waveform) / 16_000, abs=0.001)
        assert result.channel_tag == 1


@pytest.mark.parametrize(
    ("form", "subtype", "encoding"),
    [
        ("WAV", "PCM_16", "ENCODING_UNSPECIFIED"),
        ("FLAC", "PCM_16", "FLAC"),
        ("OGG", "OPUS", "OGGOPUS"),
        ("RAW", "ULAW", "MULAW"),
        ("RAW", "ALAW", "ALAW"),
    ],
)
def test_encodings(riva: Riva, recordings: list[Recording], form: str, subtype: str, encoding: str) -> None:
    audio = coded(recordings[0].waveform, form, subtype)
    (result,) = riva.recognize(audio, encoding=encoding).results
    file = coded(recordings[0].waveform, "WAV" if form == "RAW" else form, subtype)
    assert result.alternatives[0].transcript == riva.rest(file)
    assert not result.alternatives[0].words


def test_channels(riva: Riva, recordings: list[Recording]) -> None:
    """Each by itself, or mixed."""
    left, right = (recording.waveform[:48_000] for recording in recordings[:2])
    both = np.stack([left, right], axis=1)
    alone = [riva.recognize(pcm(side)).results[0].alternatives[0].transcript for side in (left, right)]
    found = riva.recognize(
        pcm(both), audio_channel_count=2, enable_separate_recognition_per_channel=True, enable_word_time_offsets=True
    ).results
    assert [result.channel_tag for result in found] == [1, 2]
    assert [result.alternatives[0].transcript for result in found] == alone
    same = np.stack([left, left], axis=1)
    (mixed,) = riva.recognize(pcm(same), audio_channel_count=2).results
    assert mixed.alternatives[0].transcript == alone[0]
    with pytest.raises(grpc.RpcError) as caught:
        list(riva.stream([pcm(both)], audio_channel_count=2, enable_separate_recognition_per_channel=True))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_silence_has_no_result(riva: Riva) -> None:
    assert not riva.recognize(bytes(64_000)).results


def test_streams(riva: Riva, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    for recording, heard in zip(recordings[:3], heard_live, strict=False):
        results = list(
            riva.stream(chunks(pcm(recording.waveform)), interim_results=True, enable_word_time_offsets=True)
        )
        interim = [result for result in results if not result.is_final]
        final = [result for result in results if result.is_final]
        assert " ".join(result.alternatives[0].transcript for result in final) == heard.text
        assert [word.word for result in final for word in result.alternatives[0].words] == heard.text.split()
        starts = [word.start_time for result in final for word in result.alternatives[0].words]
        assert starts == [round(word.start_sec * 1000) for word in heard.words]
        assert len(interim) > 3
        assert all(0 <= result.stability < 1 for result in interim)
        assert all(result.stability == 1 for result in final)
        assert final[-1].audio_processed == pytest.approx(len(recording.waveform) / 16_000, abs=0.001)


def test_a_stream_without_interim_results_of_a_wav_file(
    riva: Riva, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    """Of which the configuration says nothing, as NVIDIA's scripts send it."""
    wav = coded(recordings[0].waveform, "WAV", "PCM_16")
    results = list(riva.stream(chunks(wav), encoding="ENCODING_UNSPECIFIED", sample_rate_hertz=0))
    assert all(result.is_final for result in results)
    assert " ".join(result.alternatives[0].transcript for result in results) == heard_live[0].text


def test_the_window_of_silence(riva: Riva, recordings: list[Recording]) -> None:
    """It ends utterances earlier where it is shorter."""
    silence = np.zeros(12_800, np.float32)
    parts = [recordings[1].waveform, silence, recordings[2].waveform, silence]
    audio = chunks(pcm(np.concatenate(parts)))
    long = len(list(riva.stream(audio, endpointing_config={"stop_history": 3000})))
    short = len(list(riva.stream(audio, endpointing_config={"stop_history": 300})))
    assert long == 1
    assert short >= 2


def test_a_call_has_its_id_and_what_was_ignored(riva: Riva, recordings: list[Recording]) -> None:
    from riva.client.proto.riva_asr_pb2 import RecognizeRequest

    request = RecognizeRequest(config=riva.config(profanity_filter=True), audio=pcm(recordings[0].waveform))
    request.id.value = "mine"
    response, call = riva.asr.stub.Recognize.with_call(request, metadata=[("x-request-id", "call-1")])
    assert response.id.value == "mine"
    trailing = dict(call.trailing_metadata())
    assert trailing["x-request-id"] == "call-1"
    assert trailing["x-moulin-ignored"] == "profanity_filter"


@pytest.mark.parametrize(
    ("fields", "audio", "code", "details"),
    [
        ({"sample_rate_hertz": 0}, bytes(100), "INVALID_ARGUMENT", "Expected sample_rate_hertz of 8000 to 192000"),
        ({"encoding": 7}, bytes(100), "INVALID_ARGUMENT", "Expected encoding to be one of"),
        ({"encoding": "FLAC"}, bytes(100), "INVALID_ARGUMENT", "Expected audio that begins as FLAC does"),
        ({}, coded(np.zeros(16_000, np.float32), "FLAC", "PCM_16")[:60], "INVALID_ARGUMENT", "the audio"),
        ({}, b"", "INVALID_ARGUMENT", "Expected a request with audio"),
        ({}, bytes(2_100_000), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_recordings_that_are_refused(riva: Riva, fields: dict[str, Any], audio: bytes, code: str, details: str) -> None:
    with pytest.raises(grpc.RpcError, match=details) as caught:
        riva.recognize(audio, **fields)
    assert caught.value.code() == grpc.StatusCode[code]
    assert "\n" not in caught.value.details()


def test_another_language_than_the_models(riva: Riva) -> None:
    for ask in (riva.recognize, lambda data, **config: list(riva.stream([data], **config))):
        with pytest.raises(grpc.RpcError, match="Expected a recording in en, which the model hears"):
            ask(bytes(3200), language_code="de-DE")


def test_streams_that_are_refused(riva: Riva) -> None:
    with grpc.insecure_channel(riva.address) as channel:
        call = channel.stream_stream(STREAMING)
        audio = messages.StreamingRecognizeRequest(audio_content=b"\0\0").SerializeToString()
        for sent, details in [([audio], "Expected a streaming_config first"), ([b"\xff"], "Expected a message")]:
            with pytest.raises(grpc.RpcError, match=details) as caught:
                list(call(iter(sent)))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="got a FLAC file") as caught:
        list(riva.stream([coded(np.zeros(16_000, np.float32), "FLAC", "PCM_16")]))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_on_which_nothing_comes(riva: Riva) -> None:
    def nothing() -> Iterator[bytes]:
        time.sleep(20)
        yield b""

    with pytest.raises(grpc.RpcError, match="Nothing has come for 3 s") as caught:
        list(riva.stream(nothing()))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_clients_that_leave_free_their_places(riva: Riva, recordings: list[Recording]) -> None:
    """By a deadline, by cancelling, and with the connection."""
    config = messages.StreamingRecognitionConfig(config=messages.RecognitionConfig(sample_rate_hertz=16_000))
    first = messages.StreamingRecognizeRequest(streaming_config=config).SerializeToString()
    audio = messages.StreamingRecognizeRequest(audio_content=pcm(recordings[0].waveform[:8000])).SerializeToString()

    def talking() -> Iterator[bytes]:
        yield first
        for _ in range(200):
            yield audio
            time.sleep(0.1)

    for leave in ("deadline", "cancel", "connection"):
        channel = grpc.insecure_channel(riva.address, options=[("grpc.use_local_subchannel_pool", 1)])
        call = channel.stream_stream(STREAMING)
        calls = [call(talking(), timeout=1.5 if leave == "deadline" else None) for _ in range(2)]
        assert eventually(lambda: riva.metric("moulin_gateway_active_streams") == 2)
        if leave != "deadline":
            with pytest.raises(grpc.RpcError, match="2 live streams are open, which is the limit") as caught:
                next(iter(call(talking())))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        for each in calls if leave == "cancel" else ():
            each.cancel()
        if leave == "connection":
            channel.close()
        assert eventually(lambda: riva.metric("moulin_gateway_active_streams") == 0)
        channel.close()
    gone = f'moulin_gateway_requests_total{{method="GRPC",route="{STREAMING}",status="499"}}'
    assert riva.metric(gone) == 6


def test_keys_and_rates(server: TritonServer, recordings: list[Recording]) -> None:
    with riva_gateway(server, api_keys=("secret",), max_requests_per_minute=2) as riva:
        for metadata, details in [([], "Expected an API key"), ([("authorization", "Bearer no")], "not one of")]:
            riva.asr.auth.metadata = metadata
            with pytest.raises(grpc.RpcError, match=details) as caught:
                riva.recognize(pcm(recordings[0].waveform))
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        riva.asr.auth.metadata = [("authorization", "Bearer secret")]
        for _ in range(2):
            assert riva.recognize(pcm(recordings[0].waveform)).results
        with pytest.raises(grpc.RpcError, match="at most 2 requests a minute") as caught:
            riva.recognize(pcm(recordings[0].waveform))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata())["retry-after"]


def test_tls(server: TritonServer, recordings: list[Recording]) -> None:
    pair: dict[str, Any] = {"tls_certificate": TLS / "certificate.pem", "tls_key": TLS / "key.pem"}
    port = claim_ports("127.0.0.1", {"--riva-port": 0})["--riva-port"]
    with running_gateway(server.grpc_url, riva_port=port, **pair) as http:
        riva = Riva(port, http, use_ssl=True, ssl_root_cert=TLS / "certificate.pem")
        (result,) = riva.recognize(pcm(recordings[0].waveform)).results
        assert result.alternatives[0].transcript == recordings[0].text


def test_phrases_to_expect(riva: Riva, recordings: list[Recording]) -> None:
    """They are hotwords: what the vocabulary cannot spell is refused, whether or not it is said."""
    audio = pcm(recordings[0].waveform)
    assert riva.recognize(audio, speech_contexts=[{"phrases": ["FIVE FIVE"], "boost": 20}]).results
    for ask in (riva.recognize, lambda data, **config: list(riva.stream([data], **config))):
        with pytest.raises(grpc.RpcError, match="漢字") as caught:
            ask(audio, speech_contexts=[{"phrases": ["漢字"]}])
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_call_that_outlasts_the_time_to_drain(server: TritonServer) -> None:
    def talking() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(3200)
            time.sleep(0.1)

    with ThreadPoolExecutor() as pool:
        with riva_gateway(server, drain_sec=0.5) as riva:
            call = pool.submit(lambda: list(riva.stream(talking())))
            assert eventually(lambda: riva.metric("moulin_gateway_active_streams") == 1)
        with pytest.raises(grpc.RpcError, match="The gateway is stopping") as caught:
            call.result(30)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_calls_that_begin_as_the_gateway_stops(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get an answer instead of none."""
    monkeypatch.setattr("moulin.gateway.riva.server._LATE_SEC", 3.0)
    port = claim_ports("127.0.0.1", {"--riva-port": 0})["--riva-port"]
    with ThreadPoolExecutor() as pool:
        with running_gateway(server.grpc_url, riva_port=port) as http:
            riva = Riva(port, http)
            assert riva.recognize(bytes(3200)) is not None
            stopped = pool.submit(_stops_in, riva, 0.5)
        code, details = stopped.result(30)
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "The gateway is stopping" in details


def _stops_in(riva: Riva, seconds: float) -> tuple[grpc.StatusCode, str]:
    """The status of a stream that begins so much later."""
    time.sleep(seconds)
    with pytest.raises(grpc.RpcError) as caught:
        list(riva.stream([bytes(3200)]))
    return caught.value.code(), caught.value.details()


def test_health(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As gRPC defines it, without a key."""
    with riva_gateway(server, api_keys=("secret",)) as riva, grpc.insecure_channel(riva.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")

        def status(service: str = "") -> str:
            answer = messages.HealthResponse.FromString(
                check(messages.HealthRequest(service=service).SerializeToString())
            )
            return str(messages.HealthResponse.ServingStatus.Name(answer.status))

        assert status() == status(messages.SERVICE) == "SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            status("nobody")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        monkeypatch.setattr(
            "moulin.gateway.triton_servers.TritonServers.is_ready", lambda _self: asyncio.sleep(0, False)
        )
        assert status() == "NOT_SERVING"


def test_connections_are_bounded(server: TritonServer) -> None:
    """By half of those that the gateway may hold."""
    with riva_gateway(server, max_connections=20, max_requests=2, max_streams=2) as riva, ExitStack() as opened:

        def answered() -> bool:
            """Whether another connection is spoken to."""
            host, _, port = riva.address.partition(":")
            client = opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
            client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            try:
                return len(client.recv(100)) > 0
            except OSError:
                return False

        assert sum(answered() for _ in range(30)) == 10


def test_the_caller_behind_a_proxy(server: TritonServer, caplog: pytest.LogCaptureFixture) -> None:
    with (
        riva_gateway(server, trusted_proxies=("127.0.0.1", "::1")) as riva,
        caplog.at_level("INFO", logger="moulin.gateway.request_context"),
    ):
        riva.asr.auth.metadata = [("x-forwarded-for", "203.0.113.7")]
        riva.recognize(bytes(3200))
        assert eventually(lambda: any(vars(record).get("client") == "203.0.113.7" for record in caplog.records))


def test_without_triton() -> None:
    port, nobody = claim_ports("127.0.0.1", {"--a": 0, "--b": 0}).values()
    with running_gateway(f"127.0.0.1:{nobody}", riva_port=port) as http, pytest.raises(grpc.RpcError) as caught:
        Riva(port, http).recognize(bytes(3200))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
