"""A server that answers one request with the reply to another: the caller gets an error, never another's words. Either
Triton takes the wrong reply, or it puts the right id around the words that its model gave for another request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from moulin.client import AsyncClient, Client
from moulin.errors import ServerUnavailable
from moulin.transcript import Transcript

SILENCE = np.zeros(160, np.float32)


class Confused(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers every second request with the reply to the one before, or with the words of that under the right id."""

    def __init__(self, *, right_id: bool) -> None:
        self.ids: list[str] = []
        self._right_id = right_id

    def ModelInfer(self, request: service_pb2.ModelInferRequest, _: grpc.ServicerContext) -> object:
        self.ids.append(request.id)
        own = self.ids[-1] if len(self.ids) % 2 else self.ids[-2]
        id_around = request.id if self._right_id else own
        reply = service_pb2.ModelInferResponse(model_name=request.model_name, id=id_around)
        reply.outputs.add(name="RESULT", datatype="BYTES", shape=[1, 1])
        text = json.dumps(Transcript(f"words of {own}", (), 1.0).to_dict() | {"request_id": own}).encode()
        reply.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
        return reply


@pytest.fixture(params=[False, True], ids=["wrong reply", "wrong words"])
def confused(request: pytest.FixtureRequest) -> Iterator[tuple[str, Confused]]:
    server, service = grpc.server(ThreadPoolExecutor(2)), Confused(right_id=request.param)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", service
    server.stop(None).wait()


def test_sync(confused: tuple[str, Confused]) -> None:
    address, service = confused
    with Client(address) as client:
        for _ in range(3):
            (own,) = client.transcribe_batch([SILENCE], request_id="upload-7")
            assert own.text == f"words of {service.ids[-1]}"
            with pytest.raises(ServerUnavailable, match="mixed up replies"):
                client.transcribe_batch([SILENCE], request_id="upload-7")
    assert len(set(service.ids)) == 6
    assert all(each.startswith("upload-7") for each in service.ids)


def test_asyncio(confused: tuple[str, Confused]) -> None:
    address, service = confused

    async def run() -> None:
        async with AsyncClient(address) as client:
            assert (await client.transcribe(SILENCE)).text == f"words of {service.ids[-1]}"
            with pytest.raises(ServerUnavailable, match="mixed up replies"):
                await client.transcribe(SILENCE)

    asyncio.run(run())
