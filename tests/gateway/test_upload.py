"""Bodies of uploads, through an application of one route."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

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
            async with received_form(request, max_bytes=MAX_BYTES, max_sec=5) as form:
                recording = recording_in(form)
                opened.append(str(Path(recording.path).readlink()))
                return JSONResponse({"name": recording.name, "bytes": len(Path(recording.path).read_bytes())})
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


@pytest.mark.parametrize(
    ("headers", "body", "status", "message"),
    [
        ({"content-type": "application/json"}, b"{}", 415, "Expected a multipart/form-data body, got application/json"),
        ({"content-type": "multipart/form-data; boundary=a", "content-encoding": "gzip"}, b"", 415, "not compressed"),
        ({"content-type": "multipart/form-data; boundary=a"}, b"nothing of it", 400, "The form is damaged"),
        ({"content-type": "multipart/form-data"}, b"", 400, "The form is damaged: Missing boundary"),
        ({"content-type": "multipart/form-data; boundary=a"}, b"--a--\r\n", 400, "in the field 'file', got none"),
    ],
)
def test_bodies_that_are_no_form(
    headers: dict[str, str], body: bytes, status: int, message: str, client: TestClient
) -> None:
    answer = client.post("/", content=body, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
