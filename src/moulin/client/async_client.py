"""An asyncio client of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from moulin.client import protocol
from moulin.client.async_bundle import GATHER_SEC, AsyncStreamBundle, Rescue
from moulin.client.async_stream import AsyncLiveStream
from moulin.client.loss import LOST_SEC, STUCK_SEC, answered
from moulin.client.protocol import CHANNEL_ARGUMENTS, DEFAULT_MODEL, DEFAULT_URL, Audio
from moulin.client.served_model import ServedModel, has_lanes, instances, ready_models, served_models
from moulin.client.stream_session import StreamSession
from moulin.errors import ClientError
from moulin.quoting import quoted
from moulin.transcript import Transcript

_Answer = TypeVar("_Answer")


class AsyncClient:
    """`Client` for asyncio: any number of calls may run concurrently.

    async with AsyncClient("localhost:8001") as client:
        transcripts = await asyncio.gather(*(client.transcribe(file) for file in files))
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = DEFAULT_MODEL,
        timeout_sec: float | None = None,
        int16: bool = False,
    ) -> None:
        """See `Client`; must be created within a running event loop."""
        self.url, self.model, self.timeout_sec, self.int16 = url, model, timeout_sec, int16
        self._inputs: dict[str, frozenset[str]] = {}
        self._ids = protocol.RequestIds()
        self._triton = triton.InferenceServerClient(protocol.check_url(url), channel_args=CHANNEL_ARGUMENTS)

    async def transcribe(self, audio: Audio, **options: Any) -> Transcript:
        """See `Client.transcribe`."""
        return (await self.transcribe_batch([audio], options))[0]

    async def transcribe_batch(
        self,
        audios: Sequence[Audio],
        options: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        request_id: str = "",
    ) -> list[Transcript]:
        """See `Client.transcribe_batch`."""
        if not audios:
            return []
        # In a thread, because reading and decoding a file would block other calls.
        waveforms = await asyncio.to_thread(lambda: [protocol.waveform(audio) for audio in audios])
        inputs = protocol.request_tensors(waveforms, options, int16=self.int16)
        outputs = protocol.requested_outputs()
        return protocol.transcripts(
            await self._infer(model or self.model, inputs=inputs, outputs=outputs, request_id=request_id)
        )

    @asynccontextmanager
    async def stream(
        self, *, model: str | None = None, request_id: str = "", **options: Any
    ) -> AsyncIterator[AsyncLiveStream]:
        """See `Client.stream`."""
        model = model or await self.streaming_model()
        inputs = await self._inputs_of(model)
        session = StreamSession(options, int16=self.int16 and "WAV_INT16" in inputs, numbered="CHUNK_INDEX" in inputs)
        stream = AsyncLiveStream(partial(self._infer, model, request_id=request_id), session)
        try:
            yield stream
        finally:
            await stream.close()

    @asynccontextmanager
    async def bundle(
        self, *, model: str | None = None, lanes: int | None = None, gather_sec: float = GATHER_SEC
    ) -> AsyncIterator[AsyncStreamBundle]:
        """Many live streams in few requests, to a streaming model as `stream` chooses it. `lanes` is by default the
        number of the model's instances. Raises ClientError where the server has no lanes."""
        bundle = await self.open_bundle(model or await self.streaming_model(), lanes=lanes, gather_sec=gather_sec)
        try:
            yield bundle
        finally:
            await bundle.close()

    async def streaming_model(self) -> str:
        """The name of the streaming model beside this client's, or else of that itself. Raises ClientError."""
        beside = protocol.streaming_name(self.model)
        return beside if await self.unless_lost(self._has(beside)) else self.model

    async def open_bundle(
        self,
        model: str,
        *,
        lanes: int | None = None,
        gather_sec: float = GATHER_SEC,
        rescue: Rescue | None = None,
    ) -> AsyncStreamBundle:
        """As `bundle`; the caller closes it. `rescue` finds other places for streams that have lost theirs."""
        limit = {"client_timeout": self.timeout_sec}
        try:
            config = (await self.unless_lost(self._triton.get_model_config(model, **limit))).config
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, model) from error
        if not has_lanes(config):
            raise ClientError(
                f"The model {quoted(model)} at {self.url} takes no bundles of streams",
                hint="it is no streaming model, or an older moulin serves it",
            )

        async def infer(**arguments: Any) -> triton.InferResult:
            return await self.unless_lost(self._infer(model, **arguments), stuck_sec=STUCK_SEC)

        return AsyncStreamBundle(infer, lanes or instances(config), gather_sec=gather_sec, rescue=rescue)

    async def unless_lost(self, asked: Awaitable[_Answer], *, stuck_sec: float | None = None) -> _Answer:
        """The answer to what this client has asked; see `loss.answered`."""
        return await answered(asked, self._is_live, server=self.url, stuck_sec=stuck_sec)

    async def _is_live(self) -> bool:
        """A health call. Raises InferenceServerException."""
        return bool(await self._triton.is_server_live(client_timeout=LOST_SEC))

    async def is_ready(self) -> bool:
        """Whether the server is up and has loaded the model."""
        try:
            return await self._has(self.model)
        except ClientError:
            return False

    async def models(self) -> list[ServedModel]:
        """See `Client.models`."""
        limit = {"client_timeout": self.timeout_sec}
        try:
            ready = ready_models(await self._triton.get_model_repository_index(**limit))
            return served_models(
                await asyncio.gather(*(self._triton.get_model_config(name, **limit) for name in ready))
            )
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, self.model) from error

    async def _has(self, model: str) -> bool:
        try:
            return bool(await self._triton.is_model_ready(model, client_timeout=self.timeout_sec))
        except InferenceServerException as error:
            raise protocol.client_error(error, self.url, model) from error

    async def _inputs_of(self, model: str) -> frozenset[str]:
        """The model's inputs; asked once for each model, to spare a busy server. None are known where the server does
        not answer: a request will tell why."""
        if model not in self._inputs:
            try:
                metadata = await self._triton.get_model_metadata(model, client_timeout=self.timeout_sec)
            except InferenceServerException:
                return frozenset()
            self._inputs[model] = protocol.inputs_of(metadata)
        return self._inputs[model]

    async def _infer(self, model: str, *, request_id: str = "", **arguments: Any) -> triton.InferResult:
        own_id = self._ids.next(request_id)
        limit = {"client_timeout": self.timeout_sec}
        try:
            result = await self._triton.infer(model, request_id=own_id, **limit | arguments)
        except InferenceServerException as error:
            if protocol.has_other_inputs(error):
                self._inputs.pop(model, None)
            raise protocol.client_error(error, self.url, model) from error
        protocol.expect_own(result, own_id)
        return result

    async def close(self) -> None:
        await self._triton.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
