"""Every state of the page, with a scripted gateway: accessible, within the window, in light, dark and on a phone."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from moulin.demo.about import SAMPLE

from .conftest import OpenPage
from .looking import look, wait_for_frames
from .scripted_gateway import MODELS, Said, Script, delta, done, hills, live_segment, scripted_gateway, word

pytestmark = pytest.mark.browser

FIRST = [word("ONE", 0.2, 0.6), word("TWO", 0.7, 1.1), word("NINE", 1.2, 1.6, 0.31), word("FOUR", 1.7, 2.1)]
SECOND = [word("SEVEN", 3.2, 3.6), word("SEVEN", 3.7, 4.1), word("ZERO", 4.2, 4.6, 0.44)]
WHOLE = done(5.0, FIRST, SECOND)


def open_files(page: Page, *names: str) -> None:
    content = SAMPLE.read_bytes()
    chosen: list[FilePayload] = [{"name": name, "mimeType": "audio/flac", "buffer": content} for name in names]
    page.set_input_files("#file", chosen)


def opened_recording(page: Page) -> None:
    open_files(page, "call with Ann.flac")
    expect(page.locator("#status")).to_contain_text("Transcribed")
    expect(page.locator("#waveform")).to_be_visible()


def test_before_anything(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    with scripted_gateway(Script()) as address:
        page = open_page(browser, address)
        expect(page.locator("#about")).to_contain_text("English digits, a demo")
        look(page, "empty", tmp_path, "#empty", "#sample", "#speak", "#open", "#earlier-button")
        page.click("#options-button")
        page.fill("#hotwords", "nine, seven seven")
        look(page, "options", tmp_path, "#channels", "#hotwords", "#readings")
        page.click("#earlier-button")
        look(page, "drawer-empty", tmp_path, "#earlier-none", "#keep", "#keep-text")


def test_a_server_that_is_not_there(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    error = {"message": "No Triton server answers on 127.0.0.1:8001 (hint: start one with 'moulin serve')"}
    script = Script(models_status=503, error={**error, "code": "server_unavailable"})
    with scripted_gateway(script) as address:
        page = open_page(browser, address, ready=False)
        expect(page.locator("#notice-text")).to_have_text("Speech recognition is not running at the moment.")
        expect(page.locator("#notice-hint")).to_have_text(re.compile(r"This page tries again in \d s\."))
        expect(page.locator("#notice-technical")).to_be_hidden()
        page.click("#notice-details summary")
        look(page, "no-triton", tmp_path, "#notice-action", "#notice-technical")
        assert "moulin serve" in page.inner_text("#notice-technical")
        script.models_status = 200  # it comes back by itself
        expect(page.locator("#status")).to_have_text("Ready")
        expect(page.locator("#notice")).to_be_hidden()


def test_no_model_and_a_key(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    script = Script(models=[])
    with scripted_gateway(script) as address:
        page = open_page(browser, address, ready=False)
        expect(page.locator("#notice-text")).to_have_text("There is no model on this server yet.")
        script.models_status, script.error = 401, {"message": "No key", "code": "missing_api_key"}
        page.click("#notice-action")
        look(page, "key", tmp_path, "#key")


def test_recordings_under_way(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    goes_on, ends = threading.Event(), threading.Event()
    first: list[Said] = [delta(*FIRST, peaks=hills(2.5)), goes_on, delta(*SECOND, peaks=hills(2.5, 125)), ends, WHOLE]
    bad: list[Said] = [
        {"error": {"message": "second.flac cannot be decoded as audio (hint: is it whole?)", "code": "invalid_audio"}}
    ]
    with scripted_gateway(Script(answers=[first, bad, [WHOLE]])) as address:
        page = open_page(browser, address)
        open_files(
            page,
            "first.flac",
            "second.flac",
            "a third one with a name that is much too long to fit in a line of a phone.flac",
        )
        expect(page.locator(".file.under-way .file-state")).to_have_text(re.compile(r"Transcribing, \d\d %"))
        expect(page.locator("#finals ruby")).to_have_count(4)
        expect(page.locator(".file.waiting")).to_have_count(2)
        look(page, "queue", tmp_path, "#files", ".file progress", "#waveform")
        goes_on.set()
        expect(page.locator("#finals ruby")).to_have_count(7)
        ends.set()
        expect(page.locator(".file.done")).to_have_count(2)
        assert page.inner_text(".file.failed .file-state") == "second.flac cannot be decoded as audio"
        assert page.inner_text("#recording-name") == "first.flac"  # nothing took its place
        look(page, "queue-done", tmp_path, ".file.failed", "#files-close")
        page.locator(".file.done").nth(1).get_by_role("button", name="Show").click()
        expect(page.locator("#recording-name")).to_contain_text("a third one")
        page.click("#files-close")
        expect(page.locator("#files")).to_be_hidden()


def test_a_full_server_is_tried_again(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    script = Script(status=429, retry_after=2, error={"message": "Full", "code": "server_busy"}, answers=[[WHOLE]])
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        open_files(page, "call.flac")
        expect(page.locator(".file.later .file-state")).to_have_text(
            re.compile(r"The server is full.*Trying again in \d s\.")
        )
        look(page, "full", tmp_path, "#notice-action", ".file.later")
        script.status = 200
        expect(page.locator("#status")).to_contain_text("Transcribed")
        expect(page.locator("#notice")).to_be_hidden()
        assert len(script.told) >= 2


def test_a_file_that_has_gone(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    """It is not waited for as a server is."""
    script = Script(status=503, error={"message": "No Triton", "code": "server_unavailable"})
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        file = tmp_path / "call.flac"
        file.write_bytes(SAMPLE.read_bytes())
        page.set_input_files("#file", file)
        expect(page.locator(".file.later")).to_be_visible()
        file.unlink()
        page.click("#notice-action")
        expect(page.locator("#notice-text")).to_have_text("call.flac cannot be read.")
        expect(page.locator("#empty")).to_be_visible()
        expect(page.locator("#files")).to_be_hidden()


def test_a_recording(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    script = Script(answers=[[delta(*FIRST, *SECOND, peaks=hills(5)), WHOLE]])
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        opened_recording(page)
        expect(page.locator("#finals .unsure")).to_have_count(2)
        expect(page.locator("#finals rt").first).to_be_hidden()  # word times are off at first
        look(page, "recording", tmp_path, "#waveform", "#player", "#copy", "#copy-times", "#clear")
        page.check("#times")
        look(page, "word-times", tmp_path, "#finals rt")
        page.uncheck("#times")
        page.fill("#find", "seven")
        expect(page.locator("#found")).to_have_text("1 of 2")
        look(page, "find", tmp_path, "#found")
        page.fill("#find", "")
        page.click("#save summary")
        look(page, "save", tmp_path, "#save-json", "#save-vtt")
        page.keyboard.press("Escape")
        expect(page.locator("#save-json")).to_be_hidden()
        page.locator("#finals li").first.hover()
        page.locator(".correct").first.click()
        look(page, "correcting", tmp_path, ".correction")
        page.fill(".correction", "ONE TWO FIVE FOUR")
        page.keyboard.press("Enter")
        assert (
            page.locator("#finals .said").first.evaluate("one => one.textContent.replace(/[0-9.]/g, '')")
            == "ONE TWO FIVE FOUR"
        )
        page.click("#clear")
        page.locator("#undo").hover()  # it stays while it is pointed at, however long looking takes
        look(page, "cleared", tmp_path, "#undo-button", "#empty")
        page.click("#undo-button")
        expect(page.locator("#finals li")).to_have_count(2)
        expect(page.locator("#waveform")).to_be_visible()
        page.locator("#finals .at").first.focus()
        page.keyboard.press("Tab")  # without a mouse
        page.keyboard.press("Enter")
        page.keyboard.type("NINE ")
        page.keyboard.press("Enter")
        page.click("#undo-button")
        texts = ["ONE TWO FIVE FOUR", "SEVEN SEVEN ZERO"]
        # A line has no inner text before it is first drawn.
        expect(page.locator("#finals .said")).to_have_text(texts, use_inner_text=True)


def test_a_recording_that_the_browser_cannot_play(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    goes_on = threading.Event()
    script = Script(answers=[[goes_on, delta(*FIRST, *SECOND, peaks=hills(5)), WHOLE]])
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        page.set_input_files("#file", FilePayload(name="call.avi", mimeType="video/avi", buffer=b"RIFF of a kind" * 50))
        facts = page.locator("#recording-facts")
        expect(facts).to_contain_text("cannot play this kind of file")
        goes_on.set()
        expect(page.locator("#status")).to_contain_text("Transcribed")
        expect(facts).to_contain_text("cannot play this kind of file")  # it is said to the end
        expect(page.locator("#finals .at").first).to_be_visible()
        assert page.locator("#finals button.at").count() == 0  # nothing offers to play
        look(page, "unplayable", tmp_path, "#recording-facts", "#waveform")


def test_a_long_recording(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    """Three hours: the waveform is of all of it."""
    lasts, pieces = 3 * 3600.0, []
    for begin in range(0, 3 * 3600, 600):
        words = [
            word(name, begin + 2.0 * i, begin + 2.0 * i + 0.5) for i, name in enumerate(["ONE", "TWO", "SIX"] * 20)
        ]
        pieces.append(delta(*words, peaks=hills(600, begin * 50)))
    whole = done(lasts, *(piece["words"] for piece in pieces))
    with scripted_gateway(Script(answers=[[*pieces, whole]])) as address:
        page = open_page(browser, address)
        opened_recording(page)
        expect(page.locator("#waveform-name")).to_have_text("Waveform of 10800.0 seconds with 1080 words")
        expect(page.locator("#status")).to_contain_text("Transcribed 3:00:00 in ")
        page.locator("#waveform").evaluate("one => { one.scrollLeft = 9000 * 88; }")
        wait_for_frames(page)
        drawn = page.locator("#canvas").evaluate(
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)"
        )
        assert drawn
        look(page, "long", tmp_path, "#overview", "#waveform")


def test_channels_and_other_readings(browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    calls = [word("ONE", 0.2, 0.6, channel=1), word("TWO", 0.8, 1.2, channel=1)], [word("SIX", 1.5, 1.9, channel=2)]
    heard = [
        {"word": one, "start_sec": i * 0.5, "end_sec": i * 0.5 + 0.4, "confidence": 0.9}
        for i, one in enumerate(["ONE", "NINE"])
    ]
    readings = [
        {"text": "ONE NINE", "score": -0.9, "words": heard},
        {"text": "ONE FIVE", "score": -1.7, "words": [heard[0], {**heard[1], "word": "FIVE"}]},
        {"text": "ONE", "score": -3.0, "words": heard[:1]},
    ]
    script = Script(answers=[
        [done(2.0, *calls, peaks=hills(2), warnings=["the recording is cut short: 1.0 s are missing"])],
        [done(1.0, FIRST[:1], alternatives=readings, peaks=hills(1))],
    ])  # fmt: skip
    with scripted_gateway(script) as address:
        page = open_page(browser, address)
        page.click("#options-button")
        page.select_option("#channels", "each")
        page.click("#options-button")
        opened_recording(page)
        look(page, "channels", tmp_path, ".speaker", ".gap")
        page.click("#options-button")
        page.check("#readings")
        page.fill("#hotwords", "nine; five five\nsix")
        page.click("#options-button")
        opened_recording(page)
        assert script.told[0]["channels"] == ["each"]
        assert "keywords[]" not in script.told[0]
        assert script.told[1]["nbest"] == ["4"]
        assert script.told[1]["keywords[]"] == ["nine", "five five", "six"]
        page.click(".readings summary")
        look(page, "readings", tmp_path, ".reading")
        page.get_by_role("button", name="ONE FIVE").click()
        assert page.locator("#finals ruby").evaluate_all("all => all.map((one) => one.firstChild.data)") == [
            "ONE",
            "FIVE",
        ]


def test_speaking(beeping_browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    script = Script(live=[
        {"type": "final", "segment": live_segment(0, "ONE TWO NINE FOUR", 0.4, is_final=True)},
        {"type": "partial", "segment": live_segment(1, "SEVEN SEVEN", 3.1)},
    ])  # fmt: skip
    with scripted_gateway(script) as address:
        page = open_page(beeping_browser, address)
        page.click("#options-button")
        page.fill("#hotwords", "nine")
        page.click("#options-button")
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Listening")
        expect(page.locator("#partial")).to_be_visible()
        expect(page.locator("#figures")).to_have_text(re.compile(r"Text \d\.\d s behind your voice"))
        expect(page.locator("#level-word")).to_have_text(re.compile("Good level|Quiet|Too loud|No sound"))
        assert {"type": "options", "options": {"hotwords": ["nine"]}} in script.heard
        look(page, "listening", tmp_path, "#partial", "#pause", "#level-word", "#figures")
        page.click("#pause")
        expect(page.locator("#status")).to_have_text("Paused")
        look(page, "paused", tmp_path, "#pause")
        page.click("#pause")
        expect(page.locator("#status")).to_have_text("Listening")
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Ready")
        expect(page.locator("#finals ruby")).to_have_count(6)  # what was open is kept


def test_a_pause_that_outlasts_the_connection(beeping_browser: Browser, open_page: OpenPage) -> None:
    closes = threading.Event()
    script = Script(live=[closes, 4408])
    with scripted_gateway(script) as address:
        page = open_page(beeping_browser, address)
        with page.expect_websocket() as first:
            page.click("#speak")
        expect(page.locator("#status")).to_have_text("Listening")
        page.click("#pause")
        expect(page.locator("#status")).to_have_text("Paused")
        with first.value.expect_event("close"):
            closes.set()
        script.live = []
        expect(page.locator("#notice")).to_be_hidden()
        with page.expect_websocket():
            page.click("#pause")  # only now it connects again
        expect(page.locator("#status")).to_have_text("Listening")
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Ready")


def test_a_screen_that_was_locked(beeping_browser: Browser, open_page: OpenPage) -> None:
    """The device stops the sound; when the page is seen again it goes on, and the text says what was not heard."""
    with scripted_gateway(Script()) as address:
        page = open_page(beeping_browser, address, ready=False)
        page.add_init_script("""
            const Plain = AudioContext;
            globalThis.AudioContext = class extends Plain {
                constructor(options) { super(options); globalThis.context = this; }
            };
        """)
        page.goto(f"http://{address}/")
        expect(page.locator("#status")).to_have_text("Ready")
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Listening")
        expect(page.locator("#level-word")).not_to_be_empty()
        page.evaluate("context.suspend()")
        page.wait_for_timeout(2500)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#finals .gap")).to_have_text(re.compile(r"The device paused the microphone for \d+ s\."))
        assert page.evaluate("context.state") == "running"
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Ready")


def test_a_word_that_the_model_cannot_spell_does_not_end_the_stream(
    beeping_browser: Browser, open_page: OpenPage
) -> None:
    wrong = {
        "type": "error",
        "code": "invalid_options",
        "message": "'%' cannot be spelt",
        "hint": "write it in letters",
    }
    script = Script(live=[wrong])
    with scripted_gateway(script) as address:
        page = open_page(beeping_browser, address)
        page.click("#options-button")
        page.fill("#hotwords", "%")
        page.click("#speak")
        expect(page.locator("#notice-text")).to_have_text("'%' cannot be spelt")
        expect(page.locator("#status")).to_have_text("Listening")
        assert [one["type"] for one in script.heard].count("options") == 1  # not with the second connection
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Ready")


def test_a_microphone_that_is_not_allowed(beeping_browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    with scripted_gateway(Script()) as address:
        page = open_page(beeping_browser, address, may_listen=False)
        page.click("#speak")
        expect(page.locator("#notice-hint")).to_contain_text("left of the address")
        look(page, "not-allowed", tmp_path, "#notice")


_LIKE_GECKO = "(KHTML, like Gecko)"
_IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 {_LIKE_GECKO}"
_MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 {_LIKE_GECKO}"
_WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 {_LIKE_GECKO} Chrome/134.0.0.0 Safari/537.36"
_ANDROID = f"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 {_LIKE_GECKO} Chrome/134.0.0.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "crossed-out microphone"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "Tap the lock"),
        (f"{_MAC} Version/18.3 Safari/605.1.15", "Choose Safari"),
        (f"{_IPHONE} Version/18.3 Mobile/15E148 Safari/604.1", "Website Settings"),
        (f"{_IPHONE} CriOS/134.0 Mobile/15E148 Safari/604.1", "phone's Settings"),
        (_ANDROID, "then Permissions"),
        (f"{_WINDOWS} Edg/134.0.0.0", "Permissions for this site"),
        (_WINDOWS, "switch Microphone on"),
        ("Nobody/1.0", "at the address bar"),
    ],
)
def test_each_browser_is_told_its_own_way(browser: Browser, agent: str, said: str) -> None:
    with scripted_gateway(Script()) as address:
        page = browser.new_page()
        page.goto(f"http://{address}/")
        hint = page.evaluate("async (agent) => (await import('/page/browsers.js')).allowHint(agent)", agent)
        page.close()
    assert said in hint


def test_a_model_without_hotwords_has_no_field_for_them(browser: Browser, open_page: OpenPage) -> None:
    plain = [
        {**model, "hotwords": False, "alternatives": False, "description": None, "languages": ["de"]}
        for model in MODELS
    ]
    with scripted_gateway(Script(models=plain)) as address:
        page = open_page(browser, address)
        page.click("#options-button")
        expect(page.locator("#hotwords-field")).to_be_hidden()
        expect(page.locator("#readings-field")).to_be_hidden()
        expect(page.locator("#sample")).to_be_hidden()
        expect(page.locator("#about-text")).to_have_text("German.")
