"""The page as a person uses it: in headless Chromium, with a microphone that plays a real recording."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, WebSocket, expect
from websockets.sync.client import connect

from moulin.evaluate.wer import count_word_errors
from moulin.launch.server import TritonServer
from tests.conftest import Recording
from tests.gateway.running_gateway import running_gateway

from .conftest import OpenPage

pytestmark = [pytest.mark.triton, pytest.mark.browser]


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    with running_gateway(server.grpc_url) as address:
        yield address


def notice(page: Page) -> str:
    expect(page.locator("#notice")).to_be_visible()
    return page.inner_text("#notice")


def words(page: Page, place: str) -> list[str]:
    """Those shown in `place`, without their times."""
    found: list[str] = page.locator(f"{place} ruby").evaluate_all("all => all.map(one => one.firstChild.data)")
    return found


def save(page: Page, ending: str) -> None:
    page.click("#save summary")
    page.click(f"#save-{ending}")


def stop(page: Page) -> None:
    page.click("#speak")
    expect(page.locator("#status")).to_have_text("Ready")


def assert_nearly(heard: list[str], recording: Recording) -> None:
    """At least half: a busy machine's simulated microphone stutters."""
    assert count_word_errors(recording.said, " ".join(heard)).rate <= 0.5, (recording.said, heard)


def test_words_appear_while_they_are_spoken(
    gateway: str, listening_browser: Browser, open_page: OpenPage, recordings: list[Recording]
) -> None:
    page = open_page(listening_browser, gateway)
    messages: list[dict[str, object]] = []

    def watch(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: messages.append(json.loads(frame)))

    page.on("websocket", watch)
    page.click("#speak")
    expect(page.locator("#status")).to_have_text("Listening")
    expect(page.locator("#speak")).to_have_text("Stop")
    expect(page.locator("#partial ruby").nth(2)).to_be_visible()
    begun = words(page, "#partial")
    assert words(page, "#finals") == []
    assert len(begun) < len(recordings[0].said.split())  # there is more to come
    level = float(page.get_attribute("#level", "aria-valuenow") or "nan")
    assert -60 <= level <= 0
    expect(page.locator("#figures")).to_contain_text(re.compile(r"Text \d+\.\d s behind your voice"))
    assert re.fullmatch(r"\d+ ms to the server and back", page.get_attribute("#figures", "title") or "")

    page.wait_for_timeout(len(recordings[0].waveform) / 16)  # milliseconds: it has been spoken, and some more
    expect(page.locator("#finals ruby").first).to_be_visible()
    heard = words(page, "#finals")
    assert heard[:2] == begun[:2]
    assert_nearly(heard, recordings[0])
    times = [float(time) for time in page.locator("#finals rt").all_text_contents()]
    assert times == sorted(times)
    assert 0.5 < times[0] < times[-1] < 0.5 + len(recordings[0].waveform) / 16_000
    expect(page.locator("#partial")).to_be_hidden()
    stop(page)
    assert words(page, "#finals")[: len(heard)] == heard

    partials = [message for message in messages if message["type"] == "partial"]
    assert float(str(partials[2]["duration_sec"])) < times[-2]  # of the audio the server had heard by then
    with page.expect_download() as download:
        save(page, "vtt")
    saved = Path(download.value.path()).read_text()
    assert saved.startswith("WEBVTT\n")
    assert "".join(re.findall(r"\w+$", saved, re.MULTILINE)[1:]).isupper()
    assert download.value.suggested_filename == "speech.vtt"


def test_stopping_keeps_what_was_said_and_speaking_goes_on(
    gateway: str, listening_browser: Browser, open_page: OpenPage
) -> None:
    page = open_page(listening_browser, gateway)
    said: list[str] = []
    for _ in range(2):
        page.click("#speak")
        expect(page.locator("#partial ruby").nth(1)).to_be_visible()
        begun = words(page, "#partial")
        stop(page)
        assert words(page, "#finals")[: len(said) + 2] == [*said, *begun[:2]]
        said = words(page, "#finals")
    times = [float(time) for time in page.locator("#finals rt").all_text_contents()]
    assert times == sorted(times)
    page.click("#clear")
    expect(page.locator("#empty")).to_be_visible()


def test_words_to_expect_while_speaking(gateway: str, listening_browser: Browser, open_page: OpenPage) -> None:
    """One that the model cannot spell is named, and nothing that was said is lost."""
    page = open_page(listening_browser, gateway)
    page.click("#options-button")
    page.fill("#hotwords", "zero, 5%")
    page.check("#readings")
    page.click("#speak")
    assert "5%" in notice(page)
    expect(page.locator("#partial ruby").nth(1)).to_be_visible()
    stop(page)
    assert len(words(page, "#finals")) >= 2
    page.click("#clear")
    page.fill("#hotwords", "zero")
    page.click("#speak")
    expect(page.locator("#partial ruby").nth(3)).to_be_visible()
    stop(page)
    expect(page.locator(".readings").first).to_contain_text("other reading")


def test_a_lost_connection_is_found_again_and_nothing_is_lost(
    server: TritonServer, listening_browser: Browser, open_page: OpenPage
) -> None:
    with ExitStack() as first:
        address = first.enter_context(running_gateway(server.grpc_url))
        page = open_page(listening_browser, address)
        page.click("#speak")
        expect(page.locator("#partial ruby").nth(1)).to_be_visible()
        begun = words(page, "#partial")
        first.close()
        said = notice(page)
        assert "The connection was lost." in said
        assert re.search(r"Trying again", said)
        expect(page.locator("#speak")).to_have_text("Stop")
    with running_gateway(server.grpc_url, port=int(address.rpartition(":")[2])):
        page.click("#notice-action")
        expect(page.locator("#status")).to_have_text("Listening")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#finals ruby").first).to_be_visible()
        stop(page)
        # What was being said when the connection broke was sent again, and what was said meanwhile was kept.
        heard = words(page, "#finals")
        assert heard[:2] == begun[:2]
        assert len(heard) > len(begun)
        assert not page.locator(".gap").count()
        page.close()


def test_a_full_server_is_waited_for(server: TritonServer, listening_browser: Browser, open_page: OpenPage) -> None:
    with running_gateway(server.grpc_url, max_streams=1) as address:
        page = open_page(listening_browser, address)
        with connect(f"ws://{address}/v1/stream") as other:
            other.recv()
            page.click("#speak")
            assert "The server is full." in notice(page)
        expect(page.locator("#status")).to_have_text("Listening")
        expect(page.locator("#notice")).to_be_hidden()
        stop(page)
        page.close()


def test_no_microphone(gateway: str, browser: Browser, open_page: OpenPage) -> None:
    page = open_page(browser, gateway)
    page.click("#speak")
    assert "No microphone was found." in notice(page)
    expect(page.locator("#speak")).to_have_text("Speak")
    expect(page.locator("#status")).to_have_text("Ready")


def test_a_microphone_that_is_not_allowed(gateway: str, listening_browser: Browser, open_page: OpenPage) -> None:
    page = open_page(listening_browser, gateway, may_listen=False)
    page.click("#speak")
    assert "The microphone was not allowed." in notice(page)


def test_an_address_that_browsers_do_not_trust(gateway: str, browser: Browser, open_page: OpenPage) -> None:
    page = open_page(browser, gateway.replace("127.0.0.1", "moulin.test"), may_listen=False)
    page.click("#speak")
    assert "only over HTTPS or on localhost" in notice(page)


def test_a_recording(gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording]) -> None:
    page = open_page(browser, gateway)
    page.set_input_files("#file", recordings[1].file)
    expect(page.locator("#status")).to_contain_text("Transcribed")
    assert words(page, "#finals") == recordings[1].text.split()
    shown = [float(time) for time in page.locator("#finals rt").all_text_contents()]
    assert shown == pytest.approx([word.start_sec for word in recordings[1].heard.words], abs=0.01)
    expect(page.locator("#recording-name")).to_have_text(recordings[1].file.name)

    expect(page.locator("#waveform-name")).to_have_text(re.compile(f"with {len(shown)} words"))
    page.wait_for_function("""() => {
        const canvas = document.querySelector("#canvas");
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value);
    }""")

    for ending in ("srt", "vtt"):
        with page.expect_download() as download:
            save(page, ending)
        assert download.value.suggested_filename == f"{recordings[1].file.stem}.{ending}"
        assert Path(download.value.path()).read_text() == _transcribed(gateway, recordings[1].file, ending)

    # A word is where it is played. On a busy machine it goes on before anybody looks.
    page.locator("#player").evaluate(
        "player => player.addEventListener('seeking', () => { globalThis.soughtSec = player.currentTime; })"
    )
    page.locator("#finals ruby").nth(3).click()
    page.wait_for_function("() => globalThis.soughtSec !== undefined")
    assert page.evaluate("soughtSec") == pytest.approx(shown[3], abs=0.1)
    page.wait_for_function("() => document.querySelector('.spoken')")


def test_channels_and_what_is_missing(
    gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording], tmp_path: Path
) -> None:
    """Two talkers at once, one a channel, of a call whose end is missing."""
    length = max(len(recording.waveform) for recording in recordings[:2]) + 32_000
    both = np.stack([np.pad(r.waveform, (0, length - len(r.waveform))) for r in recordings[:2]], axis=1)
    soundfile.write(tmp_path / "call.wav", both, 16_000)
    (tmp_path / "call.wav").write_bytes((tmp_path / "call.wav").read_bytes()[:-64_000])
    page = open_page(browser, gateway)
    page.click("#options-button")
    page.select_option("#channels", "each")
    page.set_input_files("#file", tmp_path / "call.wav")
    expect(page.locator("#status")).to_contain_text("Transcribed")
    for channel, recording in enumerate(recordings[:2], start=1):
        segments = page.locator("#finals li").filter(has_text=f"Channel {channel}")
        heard = " ".join(
            element.evaluate("ruby => ruby.firstChild.textContent") for element in segments.locator("ruby").all()
        )
        assert heard == recording.text
    expect(page.locator("#finals .gap")).to_contain_text("cut short")
    for ending in ("srt", "vtt"):
        with page.expect_download() as download:
            save(page, ending)
        expected = _transcribed(gateway, tmp_path / "call.wav", ending, channels="each")
        assert Path(download.value.path()).read_text() == expected


def test_every_choice_of_channels(
    gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording], tmp_path: Path
) -> None:
    """Three talkers in turn, one a channel: each choice gives those of its channels, in their order."""
    talkers = recordings[:3]
    turns = np.zeros((sum(len(talker.waveform) + 16_000 for talker in talkers), 3), np.float32)
    at = 0
    for channel, talker in enumerate(talkers):
        turns[at : at + len(talker.waveform), channel] = talker.waveform
        at += len(talker.waveform) + 16_000
    soundfile.write(tmp_path / "call.wav", turns, 16_000)

    def opened_with(choice: str) -> Page:
        page = open_page(browser, gateway)
        page.click("#options-button")
        page.select_option("#channels", choice)
        page.set_input_files("#file", tmp_path / "call.wav")
        return page

    one, two, three = (talker.text for talker in talkers)
    choices = {"mix": [one, two, three], "each": [one, two, three], "left": [one], "right": [two], "3": [three]}
    for choice, texts in choices.items():
        page = opened_with(choice)
        expect(page.locator("#status")).to_contain_text("Transcribed")
        shown = " ".join(words(page, "#finals"))
        # Another level, or another place in a piece, changes a word here and there; another channel all of them.
        assert count_word_errors(" ".join(texts), shown).rate <= 0.4, choice
        speakers = set(page.locator("#finals .speaker").all_text_contents())
        assert speakers == ({"Channel 1", "Channel 2", "Channel 3"} if choice == "each" else set())
    assert "has 3 channels, expected channel 4" in notice(opened_with("4"))


def _transcribed(gateway: str, file: Path, response_format: str, **fields: str) -> str:
    """What the server itself makes of the file."""
    boundary = "b0undary"
    fields = {"model": "whisper-1", "response_format": response_format, **fields}
    body = b"".join(
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    body += f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.flac"\r\n\r\n'.encode()
    body += file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"http://{gateway}/v1/audio/transcriptions",
        body,
        {"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request) as answer:
        text: str = answer.read().decode()
    return text


def test_a_file_that_is_no_recording(gateway: str, browser: Browser, open_page: OpenPage) -> None:
    page = open_page(browser, gateway)
    page.set_input_files("#file", {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear Sirs, " * 99})
    assert "letter.txt cannot be decoded as audio" in notice(page)
    expect(page.locator("#recording")).to_be_hidden()
    expect(page.locator("#open")).to_be_enabled()


def test_dropping_a_recording(gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording]) -> None:
    page = open_page(browser, gateway)
    content = list(recordings[2].file.read_bytes())
    data = page.evaluate_handle(
        """content => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "dropped.flac"));
            return data;
        }""",
        content,
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    expect(page.locator("#drop")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator("#drop")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("Transcribed")
    assert words(page, "#finals") == recordings[2].text.split()


def test_a_server_with_keys(server: TritonServer, listening_browser: Browser, open_page: OpenPage) -> None:
    with running_gateway(server.grpc_url, api_keys=("secret",)) as address:
        page = open_page(listening_browser, address, ready=False)
        expect(page.locator("#key-form")).to_contain_text("asks for an API key")
        page.fill("#key", "guess")
        page.press("#key", "Enter")
        expect(page.locator("#key-form")).to_contain_text("does not know that API key")
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("Ready")
        page.click("#speak")
        expect(page.locator("#status")).to_have_text("Listening")
        stop(page)
        page.close()


def test_no_triton(browser: Browser, open_page: OpenPage) -> None:
    with running_gateway("127.0.0.1:9") as address:
        page = open_page(browser, address, ready=False)
        assert "Speech recognition is not running at the moment." in notice(page)
        page.click("#notice-details summary")
        expect(page.locator("#notice-technical")).to_contain_text("No Triton server answers")
        expect(page.locator("#speak")).to_be_disabled()
        page.close()


def test_models_of_one_kind(gateway: str, browser: Browser, open_page: OpenPage) -> None:
    page = open_page(browser, gateway)
    expect(page.locator("#model option")).to_have_text(
        ["digits-en", "conformer-offline (recordings only)", "lstm-streaming"]
    )
    page.select_option("#model", "tiny-lstm")  # a streaming model hears recordings too
    expect(page.locator("#open")).to_be_enabled()
    expect(page.locator("#speak")).to_be_enabled()
    page.select_option("#model", "tiny-conformer")
    expect(page.locator("#open")).to_be_enabled()
    expect(page.locator("#speak")).to_be_disabled()
    expect(page.locator("#status")).to_have_text("This model takes recordings only")
    page.select_option("#model", "transducer")
    expect(page.locator("#about-text")).to_have_text("English digits, a demo.")


def test_the_sample(gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording]) -> None:
    page = open_page(browser, gateway)
    page.click("#sample")
    expect(page.locator("#status")).to_contain_text("Transcribed")
    assert words(page, "#finals") == recordings[1].text.split()


def test_a_long_recording_grows(
    gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording], tmp_path: Path
) -> None:
    """Text and waveform while it is transcribed, by both kinds of models; then all of it."""
    silence = np.zeros(32_000, np.float32)
    speech = np.concatenate([part for r in recordings for part in (r.waveform, silence)] * 3)
    soundfile.write(tmp_path / "long.flac", speech, 16_000)
    page = open_page(browser, gateway)
    page.evaluate("""() => {
        globalThis.seen = [];
        new MutationObserver(() => seen.push([
            document.querySelector(".file-state")?.textContent, document.querySelectorAll("#finals ruby").length,
        ])).observe(document.body, { childList: true, subtree: true, characterData: true });
    }""")
    page.set_input_files("#file", tmp_path / "long.flac")
    expect(page.locator("#status")).to_contain_text("Transcribed")
    seen = page.evaluate("seen")
    percents = [int(found[1]) for state, _ in seen if (found := re.fullmatch(r"Transcribing, (\d+) %", state or ""))]
    assert len(set(percents)) > 5
    assert percents == sorted(percents)
    assert len({count for _, count in seen}) > 10
    heard = words(page, "#finals")
    assert len(heard) > 380
    peaks = page.locator("#waveform-name")
    expect(peaks).to_have_text(f"Waveform of {len(speech) / 16_000:.1f} seconds with {len(heard)} words")


def test_keys(gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording]) -> None:
    page = open_page(browser, gateway)
    page.set_input_files("#file", recordings[1].file)
    expect(page.locator("#status")).to_contain_text("Transcribed")
    player = page.locator("#player")

    def at() -> float:
        found: float = player.evaluate("player => player.currentTime")
        return found

    page.focus("#transcript")
    page.keyboard.press("ArrowRight")
    assert at() == pytest.approx(5, abs=0.1)
    page.keyboard.press("ArrowLeft")
    assert at() == pytest.approx(0, abs=0.1)
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('.spoken')")
    page.keyboard.press("Escape")
    assert player.evaluate("player => player.paused")
    page.focus("#waveform")
    page.keyboard.press("ArrowDown")
    starts = [
        float(time) for time in page.locator("#finals .at").evaluate_all("all => all.map((one) => one.dataset.sec)")
    ]
    assert at() == pytest.approx(starts[1], abs=0.1)
    assert page.get_attribute("#waveform", "aria-valuenow") == f"{at():.1f}"
    page.focus("#find")
    page.keyboard.type("one two")  # a space is a letter there
    assert player.evaluate("player => player.paused")
    expect(page.locator("#found")).to_have_text(re.compile(r"\d of \d|Not found"))


def test_hotwords_and_other_readings(
    gateway: str, browser: Browser, open_page: OpenPage, recordings: list[Recording]
) -> None:
    page = open_page(browser, gateway)
    page.click("#options-button")
    page.fill("#hotwords", "zero, 5%")
    page.set_input_files("#file", recordings[0].file)
    assert "5%" in notice(page)  # cannot be spelt, and the gateway says so
    page.fill("#hotwords", "zero")
    page.check("#readings")
    page.set_input_files("#file", recordings[0].file)
    expect(page.locator("#status")).to_contain_text("Transcribed")
    page.click(".readings summary")
    other = page.locator(".reading").first.text_content()
    page.locator(".reading").first.click()
    assert " ".join(words(page, "#finals")) == other
