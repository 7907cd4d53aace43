"""What was dictated or transcribed stays: over files, Clear, a reload and other windows; and goes when told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from moulin.demo.about import SAMPLE

from .conftest import OpenPage
from .looking import look
from .scripted_gateway import Script, delta, done, hills, live_segment, scripted_gateway, word

pytestmark = pytest.mark.browser

SPOKEN = {"type": "final", "segment": live_segment(0, "FOUR FIVE SIX", 0.4, is_final=True)}
HEARD = done(2.0, [word("ONE", 0.2, 0.6), word("TWO", 0.7, 1.1)], peaks=hills(2))
BAD = {"error": {"message": "a.txt cannot be decoded as audio", "code": "invalid_audio"}}

KEPT = """() => new Promise((resolve) => {
    const request = indexedDB.open("moulin");
    request.onsuccess = () => {
        const stores = [...request.result.objectStoreNames];
        if (!stores.length) { request.result.close(); resolve(null); return; }
        const all = request.result.transaction(stores).objectStore("entries").getAll();
        all.onsuccess = () => { request.result.close(); resolve(all.result); };
    };
})"""


@pytest.fixture
def script() -> Script:
    return Script(live=[SPOKEN], answers=[[HEARD]])


@pytest.fixture
def gateway(script: Script) -> Iterator[str]:
    with scripted_gateway(script) as address:
        yield address


def said(page: Page) -> list[str]:
    found: list[str] = page.locator("#finals ruby").evaluate_all("all => all.map((one) => one.firstChild.data)")
    return found


def dictate(page: Page) -> None:
    page.click("#speak")
    expect(page.locator("#finals ruby")).to_have_count(3)
    page.click("#speak")
    expect(page.locator("#status")).to_have_text("Ready")


def open_file(page: Page, name: str = "call.flac") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "audio/flac", "buffer": SAMPLE.read_bytes()})


def kept(page: Page, count: int) -> None:
    """Wait until the browser has kept so many transcripts."""
    page.wait_for_function(f"async () => (await ({KEPT})())?.length === {count}")


def test_a_file_takes_the_place_of_nothing(
    gateway: str, script: Script, beeping_browser: Browser, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(beeping_browser, gateway)
    dictate(page)
    script.answers = [[BAD], [HEARD]]
    open_file(page, "a.txt")
    expect(page.locator("#notice-text")).to_have_text("a.txt cannot be decoded as audio")
    assert said(page) == ["FOUR", "FIVE", "SIX"]  # as if nothing had been opened
    open_file(page)
    expect(page.locator("#recording-name")).to_have_text("call.flac")
    expect(page.locator("#finals ruby")).to_have_count(2)
    page.click("#earlier-button")
    look(page, "drawer", tmp_path, ".earlier-open", "#keep", "#forget-all")
    page.locator(".earlier-open", has_text="Speech").click()
    expect(page.locator("#finals ruby")).to_have_count(3)
    expect(page.locator("#recording")).to_be_hidden()
    page.click("#earlier-button")
    page.locator(".earlier-open", has_text="call.flac").click()
    expect(page.locator("#player")).to_be_visible()  # the recording is there as long as the page is
    expect(page.locator("#waveform")).to_be_visible()


def test_a_recording_opened_while_speaking(gateway: str, beeping_browser: Browser, open_page: OpenPage) -> None:
    page = open_page(beeping_browser, gateway)
    page.click("#speak")
    expect(page.locator("#finals ruby")).to_have_count(3)
    open_file(page)
    expect(page.locator("#earlier-count")).to_have_text(" 2")
    assert said(page) == ["FOUR", "FIVE", "SIX"]
    expect(page.locator("#status")).to_have_text("Listening")
    page.click("#speak")
    expect(page.locator("#status")).to_have_text("Ready")


def test_a_reload(gateway: str, beeping_browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(beeping_browser, gateway)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#speak")
    expect(page.locator("#finals ruby")).to_have_count(3)
    page.reload()
    expect(page.locator("#status")).to_have_text("Ready")
    expect(page.locator("#finals ruby")).to_have_count(3)
    dictate_more = page.locator("#finals ruby")
    page.click("#speak")  # goes on in the same transcript
    expect(dictate_more).to_have_count(6)
    page.click("#speak")
    expect(page.locator("#status")).to_have_text("Ready")
    open_file(page)
    expect(page.locator("#finals ruby")).to_have_count(2)
    kept(page, 2)
    page.reload()
    expect(page.locator("#finals ruby")).to_have_count(2)
    look(page, "reloaded", tmp_path, "#recording-name", "#recording-facts")
    expect(page.locator("#recording-facts")).to_contain_text("Only the text is kept")
    expect(page.locator("#waveform")).to_be_hidden()
    expect(page.locator("#player")).to_be_hidden()
    [entries, _] = page.evaluate(KEPT)
    assert "peaks" not in str(entries)


def test_clear_can_be_undone(gateway: str, beeping_browser: Browser, open_page: OpenPage) -> None:
    page = open_page(beeping_browser, gateway)
    dictate(page)
    page.click("#clear")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#earlier-count")).to_have_text("")
    page.click("#undo-button")
    assert said(page) == ["FOUR", "FIVE", "SIX"]
    expect(page.locator("#earlier-count")).to_have_text(" 1")
    page.click("#speak")
    expect(page.locator("#finals ruby")).to_have_count(6)
    page.click("#clear")  # while it is being spoken
    expect(page.locator("#finals ruby")).to_have_count(0)
    page.click("#undo-button")
    expect(page.locator("#finals ruby")).to_have_count(6)
    page.click("#speak")


def test_corrections_are_kept_and_other_windows_have_them(
    gateway: str, beeping_browser: Browser, open_page: OpenPage
) -> None:
    page = open_page(beeping_browser, gateway)
    dictate(page)
    kept(page, 1)
    other = page.context.new_page()
    other.goto(f"http://{gateway}/")
    expect(other.locator("#earlier-count")).to_have_text(" 1")
    expect(other.locator("#finals ruby")).to_have_count(0)  # a window of its own
    other.click("#earlier-button")
    other.locator(".earlier-open").click()
    expect(other.locator("#finals ruby")).to_have_count(3)
    page.locator("#finals li").first.dblclick()
    page.fill(".correction", "FOUR FIVES SIX SEVEN")
    page.keyboard.press("Enter")
    expect(other.locator("#finals ruby")).to_have_count(4)
    assert said(other) == ["FOUR", "FIVES", "SIX", "SEVEN"]
    times = [float(time) for time in page.locator("#finals rt").all_text_contents()]
    assert times == sorted(times)
    assert times[:3:2] == [0.4, 1.2]  # of words that stayed
    other.click("#speak")
    expect(other.locator("#status")).to_have_text("Listening")
    page.click("#speak")  # both windows speak, each into a transcript of its own
    expect(page.locator("#finals ruby")).to_have_count(3)
    expect(other.locator("#finals ruby")).to_have_count(7)
    for window in (page, other):
        window.click("#speak")
        expect(window.locator("#status")).to_have_text("Ready")
    expect(page.locator("#earlier-count")).to_have_text(" 2")


def test_forgetting(gateway: str, beeping_browser: Browser, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(beeping_browser, gateway)
    page.on("dialog", lambda dialog: dialog.accept())
    dictate(page)
    kept(page, 1)
    page.click("#earlier-button")
    page.uncheck("#keep")
    kept(page, 0)
    expect(page.locator("#keep-text")).to_have_text("These are gone when this window closes.")
    expect(page.locator(".earlier-open")).to_have_count(1)  # until then they are there
    page.check("#keep")
    kept(page, 1)
    page.click("#forget-all")
    look(page, "forget", tmp_path, "#forget-yes", "#forget-no")
    page.click("#forget-no")
    expect(page.locator(".earlier-open")).to_have_count(1)
    page.click("#forget-all")
    page.click("#forget-yes")
    expect(page.locator(".earlier-open")).to_have_count(0)
    kept(page, 0)
    page.click("#earlier-close")
    expect(page.locator("#empty")).to_be_visible()
    page.reload()
    expect(page.locator("#status")).to_have_text("Ready")
    expect(page.locator("#empty")).to_be_visible()


def test_deleting_one(gateway: str, beeping_browser: Browser, open_page: OpenPage) -> None:
    page = open_page(beeping_browser, gateway)
    dictate(page)
    page.click("#earlier-button")
    page.click("#fresh")
    expect(page.locator("#empty")).to_be_visible()
    page.click("#earlier-button")
    page.locator("#earlier-list").get_by_role("button", name="Delete Speech").click()
    expect(page.locator(".earlier-open")).to_have_count(0)
    page.click("#earlier-close")
    page.click("#undo-button")
    expect(page.locator("#earlier-count")).to_have_text(" 1")


def test_deleting_one_that_is_transcribed(gateway: str, script: Script, browser: Browser, open_page: OpenPage) -> None:
    """It is not transcribed on, unseen; and what is shown again is kept again."""
    never = threading.Event()
    script.answers = [[delta(word("ONE", 0.2, 0.6)), never, HEARD], [HEARD]]
    page = open_page(browser, gateway)
    files = [FilePayload(name=name, mimeType="audio/flac", buffer=SAMPLE.read_bytes()) for name in ("a.flac", "b.flac")]
    page.set_input_files("#file", files)
    expect(page.locator("#finals ruby")).to_have_count(1)
    page.click("#earlier-button")
    page.locator("#earlier-list").get_by_role("button", name="Delete a.flac").click()
    expect(page.locator(".file.failed .file-state")).to_have_text("Cancelled")
    expect(page.locator(".file.done")).to_have_count(1)
    expect(page.locator("#earlier-count")).to_have_text(" 1")
    page.click("#earlier-close")
    page.get_by_role("button", name="Show a.flac").click()
    expect(page.locator("#finals ruby")).to_have_count(1)
    expect(page.locator("#earlier-count")).to_have_text(" 2")
    kept(page, 2)
    never.set()


def test_what_is_older_than_a_week_goes(gateway: str, beeping_browser: Browser, open_page: OpenPage) -> None:
    page = open_page(beeping_browser, gateway)
    page.on("dialog", lambda dialog: dialog.accept())
    dictate(page)
    kept(page, 1)
    page.evaluate("""async () => {
        const { History } = await import("/page/history.js");
        const history = await History.open();
        const [summary] = await history.summaries();
        const ago = (days) => Date.now() - days * 86400000;
        const old = (id, days) => history.save({ ...summary, id, changedAt: ago(days) }, [{ note: id }]);
        await old("six", 6.9);
        await old("eight", 7.1);
    }""")
    kept(page, 3)
    page.reload()
    expect(page.locator("#earlier-count")).to_have_text(" 2")
    kept(page, 2)


def test_an_operator_who_lets_nothing_be_kept(
    script: Script, beeping_browser: Browser, open_page: OpenPage, tmp_path: Path
) -> None:
    with scripted_gateway(script, history=False) as address:
        page = open_page(beeping_browser, address)
        dictate(page)
        open_file(page)
        expect(page.locator("#finals ruby")).to_have_count(2)
        page.click("#earlier-button")
        expect(page.locator(".earlier-open")).to_have_count(2)  # of this window
        expect(page.locator("#keep-field")).to_be_hidden()
        look(page, "drawer-no-history", tmp_path, "#keep-text")
        assert page.evaluate(KEPT) is None
        page.click("#earlier-close")
        asked: list[str] = []

        def stay(dialog: object) -> None:
            asked.append(dialog.type)  # type: ignore[attr-defined]
            dialog.dismiss()  # type: ignore[attr-defined]

        page.on("dialog", stay)
        with page.expect_event("dialog"):
            page.evaluate("setTimeout(() => location.reload(), 0)")
        assert asked == ["beforeunload"]
        expect(page.locator("#finals ruby")).to_have_count(2)


def test_a_browser_that_lets_nothing_be_kept(gateway: str, beeping_browser: Browser, open_page: OpenPage) -> None:
    """As in some private windows."""
    page = open_page(beeping_browser, gateway, ready=False)
    page.add_init_script("IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); };")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"http://{gateway}/")
    expect(page.locator("#status")).to_have_text("Ready")
    dictate(page)
    open_file(page)
    expect(page.locator("#finals ruby")).to_have_count(2)
    page.click("#earlier-button")
    expect(page.locator("#keep-text")).to_contain_text("This browser lets this page keep nothing")
    expect(page.locator(".earlier-open")).to_have_count(2)
    page.locator(".earlier-open", has_text="Speech").click()
    expect(page.locator("#finals ruby")).to_have_count(3)
