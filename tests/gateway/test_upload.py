"""Bodies of uploads, through an application of one route."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from moulin.gateway import upload
from moulin.gateway.api_error import ApiError
from moulin.gateway.upload import received_form, recording_in

MAX_BYTES = 100_000


@pytest.fixture
def opened() -> list[str]:
    """Where the recordings were while their forms were open."""
    return []


@pytest.fixture
def client(opened: list[str]) -> TestClient:
    async def upload(request: Request) -> JSONResponse:
        try:
            async with received_form(request, max_bytes=MAX_BYTES, max_sec=5, min_bytes_per_sec=1000) as form:
                recording = recording_in(form)
                path = Path(f"/proc/self/fd/{recording.descriptor}")
                opened.append(str(path.readlink()))
                return JSONResponse({"name": recording.name, "bytes": len(path.read_bytes())})
        except ApiError as error:
            return JSONResponse(error.body(), status_code=error.status)

    return TestClient(Starlette(routes=[Route("/", upload, methods=["POST"])]))


@pytest.mark.parametrize("size", [0, 1, MAX_BYTES])
def test_a_file_is_on_disk_without_a_name(size: int, client: TestClient, opened: list[str]) -> None:
    answer = client.post("/", files={"file": ("a.wav", b"x" * size)}, data={"model": "m"})
    assert answer.json() == {"name": "a.wav", "bytes": size}
    (path,) = opened
    assert path.endswith("(deleted)") or not Path(path).exists()


def test_too_large_by_its_length_or_by_what_comes(client: TestClient) -> None:
    body = {"file": ("a.wav", b"x" * (MAX_BYTES + (1 << 20)))}
    announced = client.post("/", files=body)
    request = client.build_request("POST", "/", files=body)
    content = request.read()
    chunks = (content[first : first + 10_000] for first in range(0, len(content), 10_000))
    sent = client.post("/", content=chunks, headers={"content-type": request.headers["content-type"]})
    for answer in (announced, sent):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")


def _part(disposition: str, body: str = "abc") -> bytes:
    return f"--a\r\nContent-Disposition: {disposition}\r\n\r\n{body}\r\n".encode()


PLAIN = _part('form-data; name="file"; filename="a.wav"')
FORM = {"content-type": "multipart/form-data; boundary=a"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "message"),
    [
        ({"content-type": "application/json"}, b"{}", 415, "Expected a multipart/form-data body, got application/json"),
        ({"content-type": "multipart/form-data; boundary=a", "content-encoding": "gzip"}, b"", 415, "not compressed"),
        ({"content-type": "multipart/form-data; boundary=a"}, b"nothing of it", 400, "The form is damaged"),
        ({"content-type": "multipart/form-data"}, b"", 400, "The form is damaged: Missing boundary"),
        (FORM, PLAIN + b"--a\r\nContent-Disposition: form-data; name=x\r\n\r\n1", 400, "ends before its last boundary"),
        (FORM, PLAIN[:-4], 400, "ends before its last boundary"),
        (FORM, PLAIN + PLAIN + b"--a--", 400, "Expected one recording in a request, got more files"),
        (FORM, _part("form-data; name=x") * 1065 + b"--a--", 400, "Expected at most 1,064 fields, got more"),
        (FORM, _part("form-data; name=x", "x" * 1_048_577) + b"--a--", 400, "Expected 'x' to have at most 1,048,576"),
        ({"content-type": "multipart/form-data; boundary=a"}, b"--a--\r\n", 400, "in the field 'file', got none"),
    ],
)
def test_bodies_that_are_no_form(
    headers: dict[str, str], body: bytes, status: int, message: str, client: TestClient
) -> None:
    answer = client.post("/", content=body, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "body", "name"),
    [
        ("multipart/form-data; boundary=a", PLAIN + b"--a--\r\n", "a.wav"),
        ("Multipart/Form-Data; Boundary=a", PLAIN + b"--a--\r\n", "a.wav"),
        ('MULTIPART/FORM-DATA ;boundary="a"', PLAIN + b"--a--", "a.wav"),
        ("multipart/form-data; charset=UTF-8; boundary=a", b"\r\n" + PLAIN + b"--a--\r\n", "a.wav"),
        ("multipart/form-data; boundary=a", b"This is a form. --a\r\n x--a \r\n" + PLAIN + b"--a--\r\n", "a.wav"),
        ("multipart/form-data; boundary=a", b"x" * 50_000 + b"\r\n" + PLAIN + b"--a--\r\nepilogue --a", "a.wav"),
        (
            "multipart/form-data; boundary=a",
            _part("form-data; name=file; filename*=UTF-8''na%C3%AFve%22%0d%0a.wav") + b"--a--\r\n",
            "naïve___.wav",
        ),
        (
            "multipart/form-data; boundary=a",
            _part("Form-Data; Name=\"file\"; FILENAME*=iso-8859-1'fr'%E9t%E9.wav; x=y") + b"--a--\r\n",
            "été.wav",
        ),
        (
            "multipart/form-data; boundary=a",
            _part("form-data; name=file; filename*=nocharset''%ff.wav; filename=plain.wav") + b"--a--\r\n",
            "plain.wav",
        ),
        (
            "multipart/form-data; boundary=a",
            _part("form-data; name=file; filename*0=a; filename*1=.wav") + b"--a--",
            "a.wav",
        ),
        ("multipart/form-data; boundary=a", _part("form-data; name=file; filename*=what") + b"--a--\r\n", "what"),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_forms_as_the_standards_allow_them(kind: str, body: bytes, name: str, block: int, client: TestClient) -> None:
    chunks = (body[first : first + block] for first in range(0, len(body), block))
    answer = client.post("/", content=chunks, headers={"content-type": kind})
    assert answer.json() == {"name": name, "bytes": 3}


def test_an_upload_that_trickles_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte each tenth of a second, where a thousand a second are expected from 0.3 s on."""
    monkeypatch.setattr(upload, "_SLOW_SEC", 0.3)

    async def slowly() -> int:
        sent = 0

        async def receive() -> Message:
            nonlocal sent
            await asyncio.sleep(0.1 if sent else 0)
            sent += 1
            head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' if sent == 1 else b"a"
            return {"type": "http.request", "body": head, "more_body": True}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
        with pytest.raises(ApiError, match=r"and 1000 bytes of it a second, got \d+ bytes so far") as caught:
            async with received_form(Request(scope, receive), max_bytes=100, max_sec=60, min_bytes_per_sec=1000):
                raise AssertionError("the upload has ended")
        assert caught.value.status == 408
        return sent

    assert asyncio.run(slowly()) < 8


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_full_disk_is_not_the_clients_fault(client: TestClient, fault: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
    answer = client.post("/", files={"file": ("a.wav", b"x")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")


def test_no_folder_for_temporary_files_is_not_the_clients_fault(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed while the gateway runs, or never there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "removed"))
    answer = client.post("/", files={"file": ("a.wav", b"x")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
