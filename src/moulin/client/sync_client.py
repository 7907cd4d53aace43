"""A blocking client of the offline service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from moulin.client import protocol
from moulin.client.protocol import DEFAULT_MODEL, DEFAULT_URL, Audio
from moulin.transcript import Transcript


class Client:
    """Transcribes over gRPC. One client may be shared by threads.

        with Client("localhost:8001") as client:
            print(client.transcribe("speech.wav").text)

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
        try:
            result = self._triton.infer(
                self.model, inputs, outputs=protocol.requested_outputs(), client_timeout=self.timeout_sec
            )
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, self.model) from error
        return protocol.transcripts(result)

    def is_ready(self) -> bool:
        """Whether the server is up and has loaded the model."""
        try:
            return bool(self._triton.is_model_ready(self.model, client_timeout=self.timeout_sec))
        except InferenceServerException:
            return False

    def close(self) -> None:
        self._triton.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
