"""Requests to Triton over gRPC: serialised messages through one channel of grpc.aio."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from moulin.evaluate.targets.triton_streams import Done, Request, serialize_audio
from moulin.triton_repo import contract

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class GrpcWire:
    """One channel to `url` (HOST:PORT). `int16` sends samples in 16 bits."""

    def __init__(self, url: str, model: str = contract.MODEL_NAME, *, int16: bool = False) -> None:
        self._model, self._int16 = model, int16
        # A whole recording may be larger than gRPC's 4 MiB.
        self._channel = grpc.aio.insecure_channel(url, [("grpc.max_send_message_length", -1)])
        # Without serialisers bytes go through as they are.
        self._infer = self._channel.unary_unary(_METHOD)
        self._tasks: set[asyncio.Task[None]] = set()

    def serialize(
        self, samples: NDArray[np.float32], *, valid: int, start: bool, end: bool, options: str = ""
    ) -> Request:
        request = self._message(samples, valid, options if start else "")
        request.parameters["sequence_start"].bool_param = start
        request.parameters["sequence_end"].bool_param = end
        return Request(request.SerializeToString(), b"")

    def serialize_whole(self, samples: NDArray[np.float32], options: str = "") -> bytes:
        serialized: bytes = self._message(samples, len(samples), options).SerializeToString()
        return serialized

    def _message(self, samples: NDArray[np.float32], valid: int, options: str) -> Any:
        request = service_pb2.ModelInferRequest(model_name=self._model)
        name, datatype, audio = serialize_audio(samples, int16=self._int16)
        request.inputs.add(name=name, datatype=datatype, shape=[1, len(samples)])
        request.inputs.add(name=contract.WAV_LENS, datatype="INT32", shape=[1, 1])
        request.outputs.add(name=contract.TRANSCRIPTS)
        request.raw_input_contents.extend([audio, np.array([valid], dtype="<i4").tobytes()])
        if options:
            request.inputs.add(name=contract.OPTIONS, datatype="BYTES", shape=[1, 1])
            text = options.encode()
            request.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        return request

    def serialize_id(self, sequence_id: int) -> bytes:
        parameters = service_pb2.ModelInferRequest()
        parameters.parameters["sequence_id"].int64_param = sequence_id
        serialized: bytes = parameters.SerializeToString()
        return serialized

    def request(self, message: bytes, done: Done) -> None:
        task = asyncio.get_running_loop().create_task(self._request(message, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def text(self, body: bytes) -> str:
        """The transcript in a reply, whose one output is a tensor of one element: its length and its bytes."""
        reply = service_pb2.ModelInferResponse.FromString(body)
        text: bytes = reply.raw_output_contents[0][4:]
        return text.decode()

    async def close(self) -> None:
        await self._channel.close()

    async def _request(self, message: bytes, done: Done) -> None:
        try:
            body = await self._infer(message)
        except grpc.aio.AioRpcError as error:
            done(b"", error.details() or error.code().name)
        else:
            done(body, None)
