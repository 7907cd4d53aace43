"""The page with what is long, much, or of another script: accessible, and within the window."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from moulin.demo.about import SAMPLE

from .conftest import OpenPage
from .looking import look
from .scripted_gateway import Script, delta, done, hills, scripted_gateway, word

pytestmark = pytest.mark.browser


def words(text: str, start: float = 0.2) -> list[dict[str, object]]:
    """A word each half a second."""
    return [word(one, start + number / 2, start + number / 2 + 0.4) for number, one in enumerate(text.split())]


def open_files(page: Page, *names: str) -> None:
    content = SAMPLE.read_bytes()
    chosen: list[FilePayload] = [{"name": name, "mimeType": "audio/flac", "buffer": content} for name in names]
    page.set_input_files("#file", chosen)


@pytest.mark.parametrize(
    ("name", "text", "file"),
    [
        ("arabic", "مرحبا بكم في هذا التسجيل الصوتي الطويل جدا الذي لا ينتهي", "تسجيل المكالمة الأولى.flac"),
        (
            "chinese",
            "今天 天气 很 好 我们 一起 去 公园 散步 吧 然后 再 回家 吃饭",
            "关于语音识别系统的一次很长的谈话录音第一部分.flac",
        ),
        (
            "long-word",
            "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3 + " ja",
            "a-name-without-any-place-to-break-it-" * 6 + ".flac",
        ),
    ],
    ids=("arabic", "chinese", "long-word"),
)
def test_other_scripts_and_long_words(
    browser: Browser, open_page: OpenPage, tmp_path: Path, name: str, text: str, file: str
) -> None:
    said = words(text)
    script = Script(answers=[[delta(*said, peaks=hills(5)), done(5.0 + len(said) / 2, said)]])
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        open_files(page, file)
        expect(page.locator("#status")).to_contain_text("Transcribed")
        look(page, f"text-{name}", tmp_path, "#finals", "#waveform", "#recording-name")


def test_three_hours(browser: Browser, open_page: OpenPage) -> None:
    """21,602 words are there, are found, and do not make the page wider."""
    segments = [words("and so it goes on from here", 3.5 * number) for number in range(3086)]
    script = Script(answers=[[delta(*segments[0], peaks=hills(5)), done(10_801.0, *segments)]])
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        open_files(page, "a conference.flac")
        expect(page.locator("#status")).to_contain_text("Transcribed")
        expect(page.locator("#finals ruby")).to_have_count(21_602)
        page.fill("#find", "goes on")
        expect(page.locator("#found")).to_contain_text("3086")
        page.set_viewport_size({"width": 375, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_words_from_right_to_left_stand_in_their_order(browser: Browser, open_page: OpenPage) -> None:
    said = words("مرحبا بكم في")
    with scripted_gateway(Script(answers=[[done(2.0, said)]])) as address:
        page = open_page(browser, address)
        open_files(page, "call.flac")
        expect(page.locator("#finals ruby")).to_have_count(3)
        boxes = [page.locator("#finals ruby").nth(number).bounding_box() for number in range(3)]
        places = [box["x"] for box in boxes if box]
        assert places == sorted(places, reverse=True)


def test_two_hundred_files(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    first, goes_on = words("ONE TWO THREE"), threading.Event()
    files = [tmp_path / f"call {number:03}.flac" for number in range(200)]
    for file in files:
        file.symlink_to(SAMPLE)
    with scripted_gateway(Script(answers=[[delta(*first, peaks=hills(2)), goes_on, done(2.0, first)]])) as address:
        page = open_page(browser, address)
        page.set_input_files("#file", files)
        expect(page.locator(".file")).to_have_count(200)
        expect(page.locator("#finals ruby")).to_have_count(3)
        page.screenshot(path=tmp_path / "two-hundred-files.png")
        page.set_viewport_size({"width": 375, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        goes_on.set()
        expect(page.locator(".file.done").nth(3)).to_be_visible()


def test_without_a_network(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    first = words("ONE TWO THREE")
    with scripted_gateway(Script(answers=[[done(2.0, first)]])) as address:
        page = open_page(browser, address)
        page.context.set_offline(True)
        open_files(page, "call.flac")
        expect(page.locator("#notice")).to_be_visible()
        look(page, "offline", tmp_path, "#notice-text")
        page.context.set_offline(False)
        expect(page.locator("#status")).to_contain_text("Transcribed")
