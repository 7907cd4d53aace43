"""A blocking client of the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from moulin.client import protocol
from moulin.client.protocol import DEFAULT_MODEL, DEFAULT_URL, Audio
from moulin.client.stream_session import StreamSession
from moulin.client.sync_stream import LiveStream
from moulin.errors import ClientError
from moulin.transcript import Transcript


class Client:
    """Transcribes over gRPC. One client may be shared by threads.

        with Client("localhost:8001") as client:
            print(client.transcribe("speech.wav").text)
            with client.stream() as stream:
                for samples in microphone:
                    print(stream.send(samples))
                print(stream.finish().text)

    All methods raise ServerUnavailable where nobody answers, ClientError where the server refuses a request, and
    AudioError for audio that cannot be read.
    """

    def __init__(self, url: str = DEFAULT_URL, *, model: str = DEFAULT_MODEL, timeout_sec: float | None = None) -> None:
        """Connects on the first call. `timeout_sec` bounds each call."""
        self.url, self.model, self.timeout_sec = url, model, timeout_sec
        self._triton = triton.InferenceServerClient(protocol.check_url(url))

    def transcribe(self, audio: Audio, **options: Any) -> Transcript:
        """The transcript of one recording. `options` are those of `DecodingOptions`: method, beam, …"""
        return self.transcribe_batch([audio], options)[0]

    def transcribe_batch(self, audios: Sequence[Audio], options: Mapping[str, Any] | None = None) -> list[Transcript]:
        """Several recordings in one request; it is refused as a whole where one of them is bad."""
        if not audios:
            return []
        inputs = protocol.request_tensors([protocol.waveform(audio) for audio in audios], options)
        return protocol.transcripts(self._infer(self.model, inputs=inputs, outputs=protocol.requested_outputs()))

    @contextmanager
    def stream(self, **options: Any) -> Iterator[LiveStream]:
        """A stream of live speech. `options` are those of `StreamOptions`: method, beam, endpoint, …

        It goes to the model `MODEL_streaming` where the server has one beside this client's `model`, else to that.
        Leaving the context without `finish` ends the stream on the server too.
        """
        beside = protocol.streaming_name(self.model)
        model = beside if self._has(beside) else self.model
        stream = LiveStream(partial(self._infer, model), StreamSession(options))
        try:
            yield stream
        finally:
            stream.close()

    def is_ready(self) -> bool:
        """Whether the server is up and has loaded the model."""
        try:
            return self._has(self.model)
        except ClientError:
            return False

    def _has(self, model: str) -> bool:
        try:
            return bool(self._triton.is_model_ready(model, client_timeout=self.timeout_sec))
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, model) from error

    def _infer(self, model: str, **arguments: Any) -> triton.InferResult:
        try:
            return self._triton.infer(model, **{"client_timeout": self.timeout_sec, **arguments})
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, model) from error

    def close(self) -> None:
        self._triton.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
