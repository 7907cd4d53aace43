"""Output of the page's audio thread for a microphone, in headless Chromium, with tones instead of speech."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.gateway.running_gateway import running_gateway

pytestmark = pytest.mark.browser


# The worklet's module, outside of an audio thread, which a test cannot look into: blocks of 128 samples go in.
CAPTURE = """async ([rate, hertz, seconds]) => {
    globalThis.sampleRate = rate;
    globalThis.AudioWorkletProcessor = class {
        port = { postMessage: (chunk) => chunk && out.push(...chunk.samples) };
    };
    globalThis.registerProcessor = (name, processor) => { globalThis.Capture = processor; };
    await import(`/page/capture.js?${rate}-${hertz}`);
    const out = [], capture = new Capture();
    for (let begin = 0; begin < rate * seconds; begin += 128) {
        const tone = (_, i) => 0.5 * Math.sin(2 * Math.PI * hertz * (begin + i) / rate);
        const block = Float32Array.from({ length: 128 }, tone);
        capture.process([[block]]);
    }
    capture.port.onmessage();
    return out;
}"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with running_gateway("127.0.0.1:9") as address:
        opened = browser.new_page()
        opened.goto(f"http://{address}/")
        yield opened
        opened.close()


HEARD = [
    (rate, hertz)
    for rate in (8_000, 16_000, 22_050, 44_100, 48_000, 96_000)
    for hertz in (100.0, 1_000.0, 3_000.0, 7_000.0)
    if hertz < 0.45 * rate
]


@pytest.mark.parametrize(("rate", "hertz"), HEARD)
def test_what_is_heard_stays(page: Page, rate: int, hertz: float) -> None:
    captured = np.array(page.evaluate(CAPTURE, [rate, hertz, 1.0])) / 32767
    assert len(captured) == pytest.approx(16_000, abs=120)  # the filter's tail stays behind
    expected = 0.5 * np.sin(2 * np.pi * hertz * np.arange(len(captured)) / 16_000)
    np.testing.assert_allclose(captured[100:], expected[100:], atol=0.005)


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("hertz", [8_500.0, 12_000.0, 20_000.0])
def test_what_16_khz_cannot_hold_is_no_noise(page: Page, rate: int, hertz: float) -> None:
    captured = np.array(page.evaluate(CAPTURE, [rate, hertz, 0.5])) / 32767
    assert np.abs(captured[200:]).max() < 0.5 / 300  # 50 dB below
