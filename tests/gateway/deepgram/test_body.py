"""Bodies as files: of samples with a header, of containers as they are, and of clients that are too slow."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.requests import ClientDisconnect, Request

from moulin.audio.pcm import RawFormat
from moulin.gateway.api_error import ApiError
from moulin.gateway.deepgram import body
from moulin.gateway.settings import GatewaySettings, gateway_settings

RAW = RawFormat("s16le", 16_000)


def request(parts: Iterable[bytes], *, pause_sec: float = 0.0, ends: bool = True, **headers: Any) -> Request:
    """One whose body comes in these parts; one that does not end goes."""
    coming = iter([*parts, None])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_sec)
        part = next(coming)
        if part is None and not ends:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": pairs}, receive)


def received(from_client: Request, raw: RawFormat | None = None, settings: GatewaySettings | None = None) -> bytes:
    """The content of the file; its digest is checked."""

    async def whole() -> bytes:
        async with body.received_body(from_client, settings or gateway_settings(), raw) as found:
            size = os.fstat(found.recording.descriptor).st_size
            content = os.pread(found.recording.descriptor, size, 0)
            sent = content[44:] if raw is not None and content[:4] == b"RIFF" else content
            assert found.sha256 == hashlib.sha256(sent).hexdigest() or raw is not None
            return content

    return asyncio.run(whole())


def coded(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(20_000, np.float32), 16_000, format=form, subtype="PCM_16")
    return file.getvalue()


def in_parts(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("step", [1, 1000, 100_000])
def test_a_container_is_as_it_is(step: int) -> None:
    data = coded("FLAC")
    assert received(request(in_parts(data, step))) == data


@pytest.mark.parametrize("form", ["FLAC", "WAV"])
@pytest.mark.parametrize("step", [3, 1000, 100_000])
def test_a_container_where_samples_were_said(form: str, step: int) -> None:
    data = coded(form)
    assert received(request(in_parts(data, step)), RAW) == data


@pytest.mark.parametrize("step", [1, 999, 100_000])
def test_samples_become_a_wav_file(step: int) -> None:
    samples = np.arange(-5000, 5000).astype("<i2")
    found, rate = soundfile.read(io.BytesIO(received(request(in_parts(samples.tobytes(), step)), RAW)), dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(found, samples)


def test_a_client_that_sends_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_SLOW_SEC", 0.05)
    with pytest.raises(ApiError, match="got 0 bytes so far") as caught:
        received(request([b"x"], pause_sec=5))
    assert caught.value.status == 408


def test_a_client_that_leaves() -> None:
    with pytest.raises(ClientDisconnect):
        received(request([b"x"], ends=False))


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ([], {}, 400),
        ([b""], {}, 400),
        ([b"x" * 101], {}, 413),
        ([b"x"], {"content_length": "101"}, 413),
        ([b"{}"], {"content_type": "application/json; charset=utf-8"}, 415),
        ([b"x"], {"content_encoding": "br"}, 415),
    ],
)
def test_refusals(parts: list[bytes], headers: dict[str, Any], status: int) -> None:
    with pytest.raises(ApiError) as caught:
        received(request(parts, **headers), settings=gateway_settings(max_upload_bytes=100))
    assert caught.value.status == status
