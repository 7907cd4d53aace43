"""Headless Chromium with a microphone that plays a recording."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from moulin.audio.decode import read_audio
from tests.conftest import Recording

_RATE = 48_000
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP moulin.test 127.0.0.1",
)

PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)  # on a machine that is busy with other tests

OpenPage = Callable[..., Page]


@pytest.fixture(scope="package")
def chromium() -> str:
    """Where it is."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("no Chromium: apt install chromium")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def spoken(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first recording as a microphone hears it: half a second early, and then silence."""
    voice = read_audio(recordings[0].file, sample_rate=_RATE)
    heard = np.concatenate([np.zeros(_RATE // 2, np.float32), voice, np.zeros(4 * _RATE, np.float32)])
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((heard * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    """Without a microphone."""
    running = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
    yield running
    running.close()


@pytest.fixture(scope="module")
def listening_browser(playwright: Playwright, chromium: str, spoken: Path) -> Iterator[Browser]:
    """With a microphone that plays `spoken` once each time it is opened."""
    flags = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={spoken}%noloop")
    running = playwright.chromium.launch(executable_path=chromium, args=[*_FLAGS, *flags])
    yield running
    running.close()


@pytest.fixture(scope="module")
def beeping_browser(playwright: Playwright, chromium: str) -> Iterator[Browser]:
    """With a microphone that beeps."""
    flags = [*_FLAGS, "--use-fake-device-for-media-stream"]
    running = playwright.chromium.launch(executable_path=chromium, args=flags)
    yield running
    running.close()


@pytest.fixture
def open_page() -> Iterator[OpenPage]:
    """A page of a gateway's, which must load nothing from elsewhere and report nothing wrong with itself."""
    pages: list[Page] = []
    faults: list[str] = []

    def opened(browser: Browser, address: str, *, ready: bool = True, may_listen: bool = True) -> Page:
        context = browser.new_context(permissions=["microphone"] if may_listen else [])
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        page.on(
            "request",
            lambda request: None if f"//{address}/" in request.url or request.url.startswith("blob:")
            else faults.append(f"from elsewhere: {request.url}"),
        )  # fmt: skip
        page.goto(f"http://{address}/")
        if ready:
            expect(page.locator("#status")).to_have_text("Ready")
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert not faults
