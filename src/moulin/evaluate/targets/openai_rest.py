"""Recordings to `POST /v1/audio/transcriptions` as OpenAI defines it: moulin's gateway, and whatever else speaks it."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from moulin.audio.waveform import SAMPLE_RATE
from moulin.client.gateway_address import GatewayAddress
from moulin.evaluate.connection import Connection, Record
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.addresses import gateway_at
from moulin.evaluate.targets.target import RunningTarget, ServerSettings

DEFAULT_MODEL = "transducer"
_BOUNDARY = "moulin-bench-7d1f3c"
_READ_BYTES = 64 * 1024


def rest_at(address: str, settings: ServerSettings) -> RunningTarget:
    """The service at ADDRESS[#MODEL], see `gateway_at`."""
    gateway, model = gateway_at(address, settings.api_key)
    return RunningTarget(None, partial(_connect, gateway, model or DEFAULT_MODEL))


def _connect(gateway: GatewayAddress, model: str, clips: Sequence[Clip], _generator: int) -> Connection:
    return RestConnection(gateway, model, clips)


class RestConnection:
    """Connections that are kept open, as many as there are requests under way."""

    def __init__(self, gateway: GatewayAddress, model: str, clips: Sequence[Clip]) -> None:
        self._gateway, self._path = gateway, gateway.path("audio/transcriptions")
        self._head = [
            ("Host", urlsplit(gateway.url).netloc),
            ("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),
            *gateway.headers.items(),
        ]
        self._bodies = {id(clip): _form(clip, model) for clip in clips}
        self._idle: list[_Kept] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_requests = 0

    def open(self, record: Record) -> _RestRequest:
        self.num_requests += 1
        return _RestRequest(self, record)

    def start(self, record: Record) -> None:
        task = asyncio.get_running_loop().create_task(self._request(record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for kept in self._idle:
            kept.writer.close()

    async def _request(self, record: Record) -> None:
        try:
            status, body = await self._exchange(self._bodies[id(record.clip)])
        except OSError as error:
            record.fail(f"cannot connect: {error.strerror or error}")
        except _Broken as error:
            record.fail(f"the server's answer is no HTTP: {error}")
        else:
            self._answered(record, status, body)

    def _answered(self, record: Record, status: int, body: bytes) -> None:
        now = asyncio.get_running_loop().time()
        try:
            fields: dict[str, Any] = json.loads(body)
            if status != 200:
                record.fail(f"{status}: {fields['error']['message']}")
                return
            text = str(fields["text"])
        except (ValueError, LookupError, TypeError):
            record.fail(f"{status}: {body[:200]!r}")
            return
        record.replied[0] = now
        record.heard(text, now)
        record.finish(text)

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer; on a new connection where the server has closed the kept one."""
        import h11

        while True:
            reused = bool(self._idle)
            kept = self._idle.pop() if reused else await self._open()
            try:
                answer = await kept.exchange(self._path, self._head, body)
            except (OSError, h11.ProtocolError) as error:
                kept.writer.close()
                if not reused:
                    raise _Broken(error) from error
                continue
            if kept.reusable():
                self._idle.append(kept)
            else:
                kept.writer.close()
            return answer

    async def _open(self) -> _Kept:
        gateway = self._gateway
        context = ssl.create_default_context() if gateway.is_secure else None
        return _Kept(*await asyncio.open_connection(gateway.host, gateway.port, ssl=context))


class _Broken(Exception):
    """The connection gave no whole answer."""


class _Kept:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        self._reader, self.writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)

    async def exchange(self, path: str, head: Sequence[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
        import h11

        request = h11.Request(method="POST", target=path, headers=[*head, ("Content-Length", str(len(body)))])
        self.writer.write(b"".join(self._http.send(it) or b"" for it in (request, h11.Data(body), h11.EndOfMessage())))
        status, parts = 0, []
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return status, b"".join(parts)

    def reusable(self) -> bool:
        import h11

        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True


class _RestRequest:
    """One recording."""

    def __init__(self, connection: RestConnection, record: Record) -> None:
        self._connection, self._record = connection, record

    def send(self, index: int) -> None:
        self._record.sent[index] = asyncio.get_running_loop().time()
        self._connection.start(self._record)

    def abandon(self) -> None:
        """Do nothing: the request ends with the connection."""


def _form(clip: Clip, model: str) -> bytes:
    """A multipart form with the recording as WAV (PCM, 16 bit)."""
    import soundfile

    wav = io.BytesIO()
    soundfile.write(wav, clip.chunks[0], SAMPLE_RATE, format="WAV", subtype="PCM_16")
    fields = {"model": model, "response_format": "json"}
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="audio.wav"\r\n'
    parts.append(f"{head}Content-Type: audio/wav\r\n\r\n".encode() + wav.getvalue() + b"\r\n")
    return b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])
