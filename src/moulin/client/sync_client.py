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
from moulin.client.protocol import CHANNEL_ARGUMENTS, DEFAULT_MODEL, DEFAULT_URL, Audio
from moulin.client.served_model import ServedModel, ready_models, served_models
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

    All methods raise ServerUnavailable where no server answers, ClientError where the server refuses a request, and
    AudioError for audio that cannot be read.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = DEFAULT_MODEL,
        timeout_sec: float | None = None,
        int16: bool = False,
    ) -> None:
        """Connects on the first call. `timeout_sec` bounds each call.

        `int16` sends audio in 16 bits, half as many bytes: recordings (for models in the layout `fused`), and streams
        where the server supports it.
        """
        self.url, self.model, self.timeout_sec, self.int16 = url, model, timeout_sec, int16
        self._inputs: dict[str, frozenset[str]] = {}
        self._ids = protocol.RequestIds()
        self._triton = triton.InferenceServerClient(protocol.check_url(url), channel_args=CHANNEL_ARGUMENTS)

    def transcribe(self, audio: Audio, **options: Any) -> Transcript:
        """The transcript of one recording. `options` are those of `DecodingOptions`: method, beam, …"""
        return self.transcribe_batch([audio], options)[0]

    def transcribe_batch(
        self,
        audios: Sequence[Audio],
        options: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        request_id: str = "",
    ) -> list[Transcript]:
        """Transcripts of several recordings in one request, which is refused as a whole where one of them is invalid.

        `model` overrides this client's; `request_id` begins the request's id in Triton's log.
        """
        if not audios:
            return []
        inputs = protocol.request_tensors([protocol.waveform(audio) for audio in audios], options, int16=self.int16)
        outputs = protocol.requested_outputs()
        return protocol.transcripts(
            self._infer(model or self.model, inputs=inputs, outputs=outputs, request_id=request_id)
        )

    @contextmanager
    def stream(self, *, model: str | None = None, request_id: str = "", **options: Any) -> Iterator[LiveStream]:
        """A stream of live speech. `options` are those of `StreamOptions`: method, beam, endpoint, …

        It goes to `model`; by default to `MODEL_streaming` if the server has it beside this client's MODEL, else to
        MODEL itself.
        Leaving the context without `finish` ends the stream on the server too.
        """
        if model is None:
            beside = protocol.streaming_name(self.model)
            model = beside if self._has(beside) else self.model
        inputs = self._inputs_of(model)
        session = StreamSession(options, int16=self.int16 and "WAV_INT16" in inputs, numbered="CHUNK_INDEX" in inputs)
        stream = LiveStream(partial(self._infer, model, request_id=request_id), session)
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

    def models(self) -> list[ServedModel]:
        """The moulin models that the server has loaded, sorted by name."""
        limit = {"client_timeout": self.timeout_sec}
        try:
            ready = ready_models(self._triton.get_model_repository_index(**limit))
            return served_models([self._triton.get_model_config(name, **limit) for name in ready])
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, self.model) from error

    def _has(self, model: str) -> bool:
        try:
            return bool(self._triton.is_model_ready(model, client_timeout=self.timeout_sec))
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, model) from error

    def _inputs_of(self, model: str) -> frozenset[str]:
        """The model's inputs; asked once for each model, to spare a busy server. None are known where the server does
        not answer: a request will tell why."""
        if model not in self._inputs:
            try:
                metadata = self._triton.get_model_metadata(model, client_timeout=self.timeout_sec)
            except InferenceServerException:
                return frozenset()
            self._inputs[model] = protocol.inputs_of(metadata)
        return self._inputs[model]

    def _infer(self, model: str, *, request_id: str = "", **arguments: Any) -> triton.InferResult:
        own_id = self._ids.next(request_id)
        limit = {"client_timeout": self.timeout_sec}
        try:
            result = self._triton.infer(model, request_id=own_id, **limit | arguments)
        except InferenceServerException as error:
            if protocol.has_other_inputs(error):
                self._inputs.pop(model, None)
            raise protocol.client_error(error, self.url, model) from error
        protocol.expect_own(result, own_id)
        return result

    def close(self) -> None:
        self._triton.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
