"""Requests to Triton over its HTTP endpoint (KServe v2 with binary tensors), on asyncio's transports.

Costs the generator a third of what grpc.aio does, and the server the same.
"""

from __future__ import annotations

import asyncio
import json

import numpy as np
from numpy.typing import NDArray

from moulin.evaluate.targets.triton_streams import Done, Request, serialize_audio
from moulin.triton_repo import contract

_ID_DIGITS = 20  # of the largest uint64; JSON does not mind the spaces before a shorter one
_ID_PLACE = "@"


class HttpWire:
    """Connections to `url` (HOST:PORT), as many as there are requests under way, kept open. `int16` sends samples in
    16 bits."""

    def __init__(self, url: str, model: str = contract.MODEL_NAME, *, int16: bool = False) -> None:
        self._model, self._int16 = model, int16
        host, _, port = url.rpartition(":")
        self._host, self._port = host, int(port)
        self._idle: list[_HttpConnection] = []
        self._connections: list[_HttpConnection] = []
        self._opening: set[asyncio.Task[None]] = set()

    def serialize(
        self, samples: NDArray[np.float32], *, valid: int, start: bool, end: bool, options: str = ""
    ) -> Request:
        parameters = {"sequence_id": _ID_PLACE, "sequence_start": start, "sequence_end": end}
        before, after = self._message(samples, valid, options if start else "", parameters)
        return Request(before, after)

    def serialize_whole(self, samples: NDArray[np.float32], options: str = "") -> bytes:
        return self._message(samples, len(samples), options, {})[0]

    def _message(
        self, samples: NDArray[np.float32], valid: int, options: str, parameters: dict[str, object]
    ) -> tuple[bytes, bytes]:
        """The parts before and after the place of the sequence's id; without an id the second part is empty."""
        count = len(samples)
        name, datatype, audio = serialize_audio(samples, int16=self._int16)
        body = audio + np.array([valid], dtype="<i4").tobytes()
        inputs = [
            _tensor(name, datatype, [1, count], {"binary_data_size": len(audio)}),
            _tensor(contract.WAV_LENS, "INT32", [1, 1], {"binary_data_size": 4}),
        ]
        if options:
            data = options.encode()
            body += len(data).to_bytes(4, "little") + data
            inputs.append(_tensor(contract.OPTIONS, "BYTES", [1, 1], {"binary_data_size": 4 + len(data)}))
        request = {
            "parameters": parameters,
            "inputs": inputs,
            "outputs": [{"name": contract.TRANSCRIPTS, "parameters": {"binary_data": True}}],
        }
        before, place, after = (part.encode() for part in json.dumps(request).partition(f'"{_ID_PLACE}"'))
        json_bytes = len(before) + (_ID_DIGITS if place else 0) + len(after)
        head = (
            f"POST /v2/models/{self._model}/infer HTTP/1.1\r\n"
            f"Host: {self._host}:{self._port}\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {json_bytes}\r\n"
            f"Content-Length: {json_bytes + len(body)}\r\n\r\n"
        )
        if not place:
            return head.encode() + before + body, b""
        return head.encode() + before, after + body

    def serialize_id(self, sequence_id: int) -> bytes:
        return str(sequence_id).rjust(_ID_DIGITS).encode()

    def request(self, message: bytes, done: Done) -> None:
        if self._idle:
            self._idle.pop().request(message, done)
            return
        task = asyncio.get_running_loop().create_task(self._connect(message, done))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def text(self, body: bytes) -> str:
        """The transcript in `body`: the JSON header, and then the one output, its length and its bytes."""
        header, _ = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        size = header["outputs"][0]["parameters"]["binary_data_size"]
        return body[len(body) - size + 4 :].decode()

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        for connection in self._connections:
            connection.abort()

    async def _connect(self, message: bytes, done: Done) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _HttpConnection(self._idle), self._host, self._port
            )
        except OSError as error:
            done(b"", f"cannot connect: {error.strerror or error}")
        else:
            self._connections.append(connection)
            connection.request(message, done)


class _HttpConnection(asyncio.Protocol):
    """One connection, one request at a time; it puts itself among the idle ones after each."""

    def __init__(self, idle: list[_HttpConnection]) -> None:
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._done: Done | None = None

    def request(self, message: bytes, done: Done) -> None:
        assert self._transport is not None
        self._done = done
        self._transport.write(message)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head, complete, body = self._received.partition(b"\r\n\r\n")
        if not complete or len(body) < _content_length(head):
            return
        self._received = b""
        self._idle.append(self)
        done, self._done = self._done, None
        assert done is not None
        done(body, None if head.startswith(b"HTTP/1.1 200") else _failure(body))

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._idle:
            self._idle.remove(self)
        done, self._done = self._done, None
        if done:
            done(b"", f"the server closed the connection{f': {error}' if error else ''}")


def _tensor(name: str, datatype: str, shape: list[int], parameters: dict[str, int]) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0] or 0)


def _failure(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return repr(body[:200])
