"""Requests to Triton over a few bidirectional gRPC streams (ModelStreamInfer), each of which carries many sequences."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from moulin.evaluate.targets.triton_grpc import GrpcWire
from moulin.evaluate.targets.triton_streams import Done
from moulin.triton_repo import contract

_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


class GrpcStreamWire(GrpcWire):
    """`GrpcWire` whose requests take turns on `streams` gRPC streams of one channel."""

    def __init__(self, url: str, model: str = contract.MODEL_NAME, *, int16: bool = False, streams: int = 4) -> None:
        super().__init__(url, model, int16=int16)
        call = self._channel.stream_stream(_METHOD)
        self._streams = [_GrpcStream(call) for _ in range(streams)]
        self._turns = itertools.cycle(self._streams)

    def request(self, message: bytes, done: Done) -> None:
        next(self._turns).request(message, done)

    def text(self, body: bytes) -> str:
        """The transcript in a reply, whose response is a field of the streamed message."""
        reply = service_pb2.ModelStreamInferResponse.FromString(body).infer_response
        text: bytes = reply.raw_output_contents[0][4:]
        return text.decode()

    async def close(self) -> None:
        for stream in self._streams:
            stream.close()
        await super().close()


class _GrpcStream:
    """One gRPC stream. Replies name the request that they answer by an id of ours."""

    def __init__(self, call: grpc.aio.StreamStreamMultiCallable) -> None:
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting: dict[str, Done] = {}
        self._ids = itertools.count()
        self._replies = call(self._requests())
        self._reader = asyncio.get_running_loop().create_task(self._read())

    def request(self, message: bytes, done: Done) -> None:
        number = str(next(self._ids))
        self._waiting[number] = done
        self._outgoing.put_nowait(message + service_pb2.ModelInferRequest(id=number).SerializeToString())

    def close(self) -> None:
        self._reader.cancel()
        self._replies.cancel()

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._outgoing.get()

    async def _read(self) -> None:
        try:
            async for body in self._replies:
                reply = service_pb2.ModelStreamInferResponse.FromString(body)
                self._waiting.pop(reply.infer_response.id)(body, reply.error_message or None)
            why = "the server closed the stream"
        except grpc.aio.AioRpcError as error:
            why = error.details() or error.code().name
        waiting, self._waiting = list(self._waiting.values()), {}
        for done in waiting:
            done(b"", why)
