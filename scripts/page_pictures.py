"""Pictures of the web page at work, by headless Chromium, as WebP."""

from __future__ import annotations

import base64
import hashlib
import shutil
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from moulin.audio.decode import read_audio

PAGE_FILES = Path(__file__).parent.parent / "src/moulin/gateway/page"
_PATIENCE_MS = 120_000
_RATE = 48_000
_QUALITY = 70


def page_digest() -> str:
    """Of all files of which the page consists: pictures with another one show an older page."""
    digest = hashlib.sha256()
    for file in sorted(PAGE_FILES.glob("*.*")):
        if file.suffix in (".html", ".css", ".js", ".svg"):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def take_pictures(url: str, recording: Path, to: Path) -> None:
    """`page.webp`, `recording.webp`, `speaking.webp` and `phone.webp` in the folder `to`, of a gateway with the demo
    models; `recording` is spoken into the microphone."""
    expect.set_options(timeout=_PATIENCE_MS)
    to.mkdir(parents=True, exist_ok=True)
    with _chromium(_spoken(recording, to / "spoken.wav")) as open_page:
        page = open_page(url, (1000, 640), "light")
        _take(page, to / "page.webp")
        _hear_the_sample(page)
        _take(page, to / "recording.webp")
        page = open_page(url, (1000, 640), "dark")
        page.click("#speak")
        expect(page.locator("#finals ruby, #partial ruby").nth(5)).to_be_visible()
        _take(page, to / "speaking.webp")
        page.click("#speak")
        page = open_page(url, (375, 720), "light")
        _hear_the_sample(page)
        _take(page, to / "phone.webp", scale=2)
    (to / "spoken.wav").unlink()


def _hear_the_sample(page: Page) -> None:
    page.click("#sample")
    expect(page.locator("#status")).to_contain_text("Transcribed")
    expect(page.locator("#waveform")).to_be_visible()


def _take(page: Page, to: Path, scale: float = 1.5) -> None:
    """Playwright writes PNG and JPEG; the browser also writes WebP, a third of their size."""
    page.wait_for_timeout(300)  # until all is drawn and at rest
    size = page.viewport_size
    assert size is not None
    clip = {"x": 0, "y": 0, **size, "scale": scale}
    told = page.context.new_cdp_session(page).send(
        "Page.captureScreenshot", {"format": "webp", "quality": _QUALITY, "clip": clip}
    )
    to.write_bytes(base64.b64decode(told["data"]))


@contextmanager
def _chromium(spoken: Path) -> Iterator[Any]:
    """A function that opens an address in a window of a size, light or dark; the microphone plays `spoken`."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("Pictures of the page need Chromium (hint: apt install chromium)")
    flags = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*flags, f"--use-file-for-fake-audio-capture={spoken}%noloop"]
        )

        def open_page(url: str, size: tuple[int, int], scheme: Any) -> Page:
            page = browser.new_page(
                viewport={"width": size[0], "height": size[1]},
                color_scheme=scheme,
                reduced_motion="reduce",
                permissions=["microphone"],
            )
            page.set_default_timeout(_PATIENCE_MS)
            page.goto(url)
            expect(page.locator("#status")).to_have_text("Ready")
            return page

        yield open_page
        browser.close()


def _spoken(recording: Path, to: Path) -> Path:
    """The recording as a microphone hears it: with a rate of 48 kHz, and silence behind it."""
    voice = np.concatenate([read_audio(recording, sample_rate=_RATE), np.zeros(4 * _RATE, np.float32)])
    with wave.open(str(to), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((voice * 32767).astype("<i2").tobytes())
    return to
