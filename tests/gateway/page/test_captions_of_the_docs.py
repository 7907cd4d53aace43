"""The pages with captions of docs/realtime.md, as they stand there, served from an origin of their own."""

from __future__ import annotations

import functools
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from moulin.launch.server import TritonServer
from moulin.transcript import Transcript
from tests.gateway.running_gateway import running_gateway

pytestmark = [pytest.mark.browser, pytest.mark.triton]

_DOCS = (Path(__file__).parents[3] / "docs" / "realtime.md").read_text()
_SECTION = _DOCS[_DOCS.index("### Captions in your own page") :]
_PAGE = re.findall(r"```html\n(.*?)```", _SECTION, re.DOTALL)[0]
_WITH_KEYS = re.findall(r"```js\n(.*?)```", _SECTION, re.DOTALL)[0]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _origin(folder: Path) -> Iterator[str]:
    """A web server of the folder, with the address http://localhost:PORT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def test_captions(
    listening_browser: Browser, server: TritonServer, heard_live: list[Transcript], tmp_path: Path
) -> None:
    with _origin(tmp_path) as origin, running_gateway(server.grpc_url, allow_origins=(origin,)) as gateway:
        (tmp_path / "captions.html").write_text(_PAGE.replace("localhost:9000", gateway))
        page = listening_browser.new_page(permissions=["microphone"])
        page.goto(f"{origin}/captions.html")
        page.click("#start")
        expect(page.locator("#captions")).to_have_text(re.compile(r"\w+\s\w+\s\w+"))
        page.click("#stop")
        expect(page.locator("#start")).to_be_enabled()
        heard = page.inner_text("#captions").split()
        page.close()
    _expect_in_order(heard, heard_live[0].text.split())


def test_a_microphone_that_is_not_there(browser: Browser, tmp_path: Path) -> None:
    """It is said, and can be tried again."""
    with _origin(tmp_path) as origin:
        (tmp_path / "captions.html").write_text(_PAGE)
        page = browser.new_page()
        page.goto(f"{origin}/captions.html")
        page.click("#start")
        expect(page.locator("#captions")).not_to_be_empty()
        expect(page.locator("#start")).to_be_enabled()
        page.close()


def test_captions_with_a_short_lived_key(
    listening_browser: Browser, server: TritonServer, heard_live: list[Transcript], tmp_path: Path
) -> None:
    with _origin(tmp_path) as origin, running_gateway(server.grpc_url, api_keys=("secret",)) as gateway:
        asked = urllib.request.Request(
            f"http://{gateway}/v1/realtime/client_secrets",
            json.dumps({"session": {"type": "transcription"}}).encode(),
            {"authorization": "Bearer secret", "content-type": "application/json"},
        )
        with urllib.request.urlopen(asked) as answer:
            secret = json.load(answer)["value"]
        (tmp_path / "captions.html").write_text(_page_with_keys(gateway, secret))
        page = listening_browser.new_page(permissions=["microphone"])
        page.goto(f"{origin}/captions.html")
        page.click("#start")
        expect(page.locator("#captions")).to_have_text(re.compile(r"\w+\s\w+\s\w+"))
        page.click("#stop")
        expect(page.locator("#start")).to_be_enabled()
        captions = page.locator("#captions").text_content() or ""
        page.close()
    assert captions.endswith("\n")  # the turn was completed, to its last word
    _expect_in_order(captions.split(), heard_live[0].text.split())


def _expect_in_order(heard: list[str], said: list[str]) -> None:
    """A browser that gets too little of the processor leaves out some of its microphone's sound."""
    assert len(heard) >= 3
    rest = iter(said)
    assert all(word in rest for word in heard)


def _page_with_keys(gateway: str, secret: str) -> str:
    """The first page with the lines that are to replace some of it."""
    begin, end = _PAGE.index("    const socket ="), _PAGE.index("    socket.onclose")
    lines = _WITH_KEYS.replace("wss://asr.example", f"ws://{gateway}")
    page = f"{_PAGE[:begin]}const secret = {json.dumps(secret)};\n{lines}{_PAGE[end:]}"
    return re.sub(r"    stop\.onclick = \(\) => socket\.send\(.*\n", "", page)
