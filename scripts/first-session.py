#!/usr/bin/env python3
"""Writes docs/first-session.md and its pictures in docs/session: the commands of a first session with the demo models,
run here, what they print, and how the terminal and the web page look meanwhile.

    python scripts/first-session.py            # `make session`; wants Chromium
    python scripts/first-session.py --check    # the same again, compared with what is written there

It starts the service on free ports and writes the usual ones; times and speeds are those of this machine, and are not
compared. Pictures are of the page whose digest stands at the head.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from page_pictures import page_digest, take_pictures
from terminal_picture import Capture, Terminal

from moulin.demo.about import SAMPLE
from moulin.demo.files import DEMO_MANIFEST, DEMO_MODEL
from moulin.launch.ports import claim_ports

ROOT = Path(__file__).parent.parent
PAGE, PICTURES = "first-session.md", "session"
MOULIN = Path(sys.executable).with_name("moulin")
HEAD = """<!-- Written by scripts/first-session.py; pictures of the page {digest}. -->

# A first session

With the demo models, English digits, on a machine without a GPU. What is printed is what these
commands printed when this page was written; times are those of that machine.
"""
USUAL = {"--http-port": 8000, "--grpc-port": 8001, "--metrics-port": 8002, "--gateway-port": 9000}
_TIMES = re.compile(r"\d+(\.\d+)?(?= s\b| times\b)|\d\d:\d\d:\d\d(?!,)")


class Session:
    """Commands in `folder`, which has some recordings, against a service on `ports`; written below `to`."""

    def __init__(self, folder: Path, ports: dict[str, int], to: Path) -> None:
        self._folder, self._ports, self._to = folder, ports, to
        (to / PICTURES).mkdir(parents=True, exist_ok=True)
        self._parts = [HEAD.format(digest=page_digest())]

    def say(self, text: str) -> None:
        self._parts.append(f"{text}\n")

    def show(self, command: str, output: str = "") -> None:
        said = re.sub(r"^\d{4}-\d\d-\d\dT\S+ ", "", self._as_usual(output), flags=re.MULTILINE)
        self._parts.append(f"```console\n$ {command}\n{said}".rstrip() + "\n```\n")

    def run(self, command: str, *more: str, shown: str | None = None) -> None:
        """Run a command, with arguments that are not shown, and show what it prints."""
        words = [str(MOULIN) if word == "moulin" else word for word in command.split()]
        done = subprocess.run(
            [*words, *more], cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        self.show(shown or command, done.stdout)

    def terminal(self, command: str, *more: str) -> Terminal:
        """`moulin …` on a terminal."""
        return Terminal([str(MOULIN), *command.split()[1:], *more], self._folder)

    def terminal_picture(self, name: str, command: str, capture: Capture, alt: str) -> None:
        svg = capture.svg(command, self._as_usual)
        (self._to / PICTURES / f"{name}.svg").write_text(svg)
        self._parts.append(f"![{alt}]({PICTURES}/{name}.svg)\n")

    def page_picture(self, name: str, alt: str) -> None:
        self._parts.append(f"![{alt}]({PICTURES}/{name}.webp)\n")

    def take_page_pictures(self, url: str) -> None:
        take_pictures(url, SAMPLE, self._to / PICTURES)

    def write(self) -> None:
        (self._to / PAGE).write_text("\n".join(self._parts).rstrip() + "\n")

    def _as_usual(self, text: str) -> str:
        """With the usual ports, and without what depends on the machine's folders."""
        for flag, port in self._ports.items():
            text = text.replace(f":{port}", f":{USUAL[flag]}")
        return text.replace(f"{self._folder}/", "")


def main() -> None:
    docs = ROOT / "docs"
    if sys.argv[1:] != ["--check"]:
        record(docs)
        return
    with tempfile.TemporaryDirectory(prefix="moulin-session-") as name:
        record(Path(name))
        if other := differing(Path(name), docs):
            sys.exit(f"Out of date: {', '.join(other)} (hint: make session)")


def record(to: Path) -> None:
    ports = claim_ports("127.0.0.1", dict.fromkeys(USUAL, 0))
    with tempfile.TemporaryDirectory(prefix="moulin-session-") as name:
        folder = Path(name)
        for number in (0, 1):
            shutil.copy(DEMO_MANIFEST.parent / f"phone-0{number}.flac", folder)
        (folder / "notes.wav").write_text("no audio")
        shutil.copytree(DEMO_MODEL, folder / "models" / DEMO_MODEL.name)
        session = Session(folder, ports, to)
        serving = session.terminal(
            "moulin serve", *(part for flag, port in ports.items() for part in (flag, str(port)))
        )
        try:
            announced = serving.until(lambda text: "Ctrl-C stops it" in text)
            session.say("Start the service, without a model of your own yet:")
            session.show("moulin serve")
            session.terminal_picture("serve", "moulin serve", announced, "The addresses of the service, on a terminal")
            with_service(session, ports)
        finally:
            serving.close()
        without_service(session)
        session.write()


def with_service(session: Session, ports: dict[str, int]) -> None:
    grpc, gateway = (f"127.0.0.1:{ports[flag]}" for flag in ("--grpc-port", "--gateway-port"))
    session.say("In another terminal, a recording:")
    session.run("moulin transcribe phone-00.flac", "--url", grpc)
    session.say("Live, as fast as it was spoken (`--mic` for a microphone). Text grows while it is said:")
    command = "moulin stream phone-00.flac --realtime"
    speaking = session.terminal(command, "--url", grpc)
    half = speaking.until(lambda text: "FIVE" in text)
    session.show(command, speaking.until_it_ends().text)
    speaking.close()
    session.terminal_picture("stream", command, half, "The first words of a recording that goes on, pale")
    session.say("Three files, one of which is no recording; then subtitles:")
    session.run("moulin transcribe phone-00.flac phone-01.flac notes.wav", "--url", grpc)
    session.run("moulin transcribe phone-00.flac --format srt", "--url", grpc)
    session.say("By OpenAI's API:")
    curl = "curl http://127.0.0.1:{}/v1/audio/transcriptions -F file=@phone-00.flac -F model=whisper-1"
    session.run(curl.format(ports["--gateway-port"]), "--silent", shown=curl.format(USUAL["--gateway-port"]))
    session.take_page_pictures(f"http://{gateway}/")
    session.say("At the same address, in a browser, is [a page](gateway.md#the-page):")
    session.page_picture("page", "The page before anything was said")
    session.say("A recording, here the sample of the demo. Play it, click on a word, correct it, save subtitles:")
    session.page_picture("recording", "A transcript below the waveform of its recording")
    session.say("Live, in the dark form, which follows the system's:")
    session.page_picture("speaking", "Words that appear while they are spoken, and the microphone's level below")
    session.say("On a phone:")
    session.page_picture("phone", "The same transcript as wide as a phone")


def without_service(session: Session) -> None:
    session.say("What a model is, without a service:")
    session.run("moulin inspect models/digits-en")
    session.say("When something is wrong, a line says what, and what to do:")
    session.run("moulin transcribe phone-00.flac --url localhost:1")
    session.run("moulin serve phone-00.flac")


def differing(now: Path, written: Path) -> list[str]:
    """The files that are not as they were, but for times; of pictures of the page only that they are there."""
    names = {str(file.relative_to(now)) for file in now.rglob("*.*")}
    names |= {str(file.relative_to(written)) for file in (written / PICTURES).iterdir()}
    return sorted(name for name in names if _compared(now / name) != _compared(written / name))


def _compared(file: Path) -> str | None:
    if not file.exists():
        return None
    if file.suffix == ".webp":
        return ""
    text = file.read_text()
    return _TIMES.sub("N", re.sub(r"<[^>]*>", "", text) if file.suffix == ".svg" else text)


if __name__ == "__main__":
    main()
