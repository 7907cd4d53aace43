"""The page's files as the gateway serves them."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from moulin.gateway.page import page_routes

NAMES = [file.name for file in files("moulin.gateway.page").iterdir() if not file.name.startswith("__")]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served(client: TestClient, name: str) -> None:
    path = "/" if name == "index.html" else f"/page/{name}"
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content == files("moulin.gateway.page").joinpath(name).read_bytes()
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].split(";")[0] == kinds[name.rpartition(".")[2]]


def test_nothing_but_our_own_scripts_may_run(client: TestClient) -> None:
    policy = dict(part.strip().split(" ", 1) for part in client.get("/").headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in " ".join(policy.values())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    content = files("moulin.gateway.page").joinpath(name).read_text()
    assert set(re.findall(r"\w+://[^\s\"'`$]+", content)) <= {"http://www.w3.org/2000/svg"}
    for reference in re.findall(r"(?:src|href)=\"([^\"#]+)\"|from \"([^\"]+)\"|addModule\(\"([^\"]+)\"\)", content):
        path = next(filter(None, reference))
        assert path.removeprefix("/page/") in NAMES


def test_a_sample_and_what_the_operator_allows(client: TestClient) -> None:
    sample = client.get("/page/sample.flac")
    assert (sample.headers["content-type"], sample.content[:4]) == ("audio/flac", b"fLaC")
    assert client.get("/page/settings.json").json() == {"history": True}
    strict = TestClient(Starlette(routes=page_routes(history=False)))
    assert strict.get("/page/settings.json").json() == {"history": False}


def test_no_other_file_is_served(client: TestClient) -> None:
    for path in ("/page/", "/page/__init__.py", "/page/../__init__.py", "/page/index.html", "/page/nothing.js"):
        assert client.get(path).status_code == 404
