"""An asyncio client of the offline service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from moulin.client import protocol
from moulin.client.protocol import DEFAULT_MODEL, DEFAULT_URL, Audio
from moulin.transcript import Transcript


class AsyncClient:
    """`Client` for asyncio: any number of calls may be under way at once.

    async with AsyncClient("localhost:8001") as client:
        transcripts = await asyncio.gather(*(client.transcribe(file) for file in files))
    """

    def __init__(self, url: str = DEFAULT_URL, *, model: str = DEFAULT_MODEL, timeout_sec: float | None = None) -> None:
        """Connects on the first call; must be made where an event loop runs."""
        self.url, self.model, self.timeout_sec = url, model, timeout_sec
        self._triton = triton.InferenceServerClient(protocol.check_url(url))

    async def transcribe(self, audio: Audio, **options: Any) -> Transcript:
        """See `Client.transcribe`."""
        return (await self.transcribe_batch([audio], options))[0]

    async def transcribe_batch(
        self, audios: Sequence[Audio], options: Mapping[str, Any] | None = None
    ) -> list[Transcript]:
        """See `Client.transcribe_batch`."""
        if not audios:
            return []
        # Reading a file takes as long as the disk and the codec want; other calls go on meanwhile.
        waveforms = await asyncio.to_thread(lambda: [protocol.waveform(audio) for audio in audios])
        inputs = protocol.request_tensors(waveforms, options)
        try:
            result = await self._triton.infer(
                self.model, inputs, outputs=protocol.requested_outputs(), client_timeout=self.timeout_sec
            )
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, self.model) from error
        return protocol.transcripts(result)

    async def is_ready(self) -> bool:
        """Whether the server is up and has loaded the model."""
        try:
            return bool(await self._triton.is_model_ready(self.model, client_timeout=self.timeout_sec))
        except InferenceServerException:
            return False

    async def close(self) -> None:
        await self._triton.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
