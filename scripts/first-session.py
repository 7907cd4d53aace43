#!/usr/bin/env python3
"""Writes docs/first-session.md: the commands of a first session, run here with the demo models, and what they print.

    python scripts/first-session.py

It starts the service on free ports and writes the usual ones; times and speeds are those of this machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from moulin.demo.files import DEMO_MANIFEST, DEMO_MODEL
from moulin.launch.ports import claim_ports

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "first-session.md"
MOULIN = Path(sys.executable).with_name("moulin")
HEAD = """<!-- Written by scripts/first-session.py. -->

# A first session

With the demo models, English digits, on a machine without a GPU. What is printed is what these
commands printed when this page was written; times are those of that machine.
"""
USUAL = {"--http-port": 8000, "--grpc-port": 8001, "--metrics-port": 8002, "--gateway-port": 9000}


class Session:
    """Commands in a folder with two recordings, against a service on `ports`."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self._folder, self._ports = folder, ports
        self.parts = [HEAD]

    def say(self, text: str) -> None:
        self.parts.append(f"{text}\n")

    def show(self, command: str, output: str) -> None:
        """`output` with the usual ports, and without what depends on the machine's folders."""
        for flag, port in self._ports.items():
            output = output.replace(f":{port}", f":{USUAL[flag]}")
        output = re.sub(r"^\d{4}-\d\d-\d\dT\S+ ", "", output, flags=re.MULTILINE).replace(f"{self._folder}/", "")
        self.parts.append(f"```console\n$ {command}\n{output.rstrip()}\n```\n")

    def run(self, command: str, *more: str) -> None:
        """Run a `moulin …` command, with arguments that are not shown."""
        words = [str(MOULIN), *command.split()[1:], *more]
        done = subprocess.run(
            words, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        self.show(command, done.stdout)


def main() -> None:
    ports = claim_ports("127.0.0.1", dict.fromkeys(USUAL, 0))
    with tempfile.TemporaryDirectory(prefix="moulin-session-") as name:
        folder = Path(name)
        for number in (0, 1):
            shutil.copy(DEMO_MANIFEST.parent / f"phone-0{number}.flac", folder)
        (folder / "notes.wav").write_text("no audio")
        session, log = Session(folder, ports), folder / "log"
        flags = [part for flag, port in ports.items() for part in (flag, str(port))]
        with log.open("w") as err:
            serving = subprocess.Popen([str(MOULIN), "serve", *flags], cwd=folder, stderr=err)
        try:
            while "Ctrl-C stops it" not in log.read_text():
                if serving.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.2)
            announced = log.read_text()
            grpc = f"127.0.0.1:{ports['--grpc-port']}"
            session.say("Start the service, without a model of your own yet:")
            session.show("moulin serve", announced)
            session.say("In another terminal, a recording:")
            session.run("moulin transcribe phone-00.flac", "--url", grpc)
            session.say("Three files, one of which is no recording; then subtitles:")
            session.run("moulin transcribe phone-00.flac phone-01.flac notes.wav", "--url", grpc)
            session.run("moulin transcribe phone-00.flac --format srt", "--url", grpc)
            session.say("Live, as fast as it was spoken (`--mic` for a microphone):")
            session.run("moulin stream phone-00.flac --realtime", "--url", grpc)
            session.say("By OpenAI's API; the page is at the same address:")
            url = f"http://127.0.0.1:{ports['--gateway-port']}/v1/audio/transcriptions"
            curl = ["curl", "--silent", url, "-F", "file=@phone-00.flac", "-F", "model=whisper-1"]
            answer = subprocess.run(curl, cwd=folder, capture_output=True, text=True, check=True).stdout
            session.show(
                "curl http://127.0.0.1:9000/v1/audio/transcriptions -F file=@phone-00.flac -F model=whisper-1", answer
            )
        finally:
            serving.terminate()
            serving.wait()
        session.say("What a model is, without a service:")
        session.run(
            f"moulin inspect {DEMO_MODEL.relative_to(ROOT)}".replace(str(DEMO_MODEL.relative_to(ROOT)), str(DEMO_MODEL))
        )
        session.parts[-1] = session.parts[-1].replace(str(DEMO_MODEL), "models/digits-en")
        session.say("When something is wrong, a line says what, and what to do:")
        session.run("moulin transcribe phone-00.flac --url localhost:1")
        session.run("moulin serve phone-00.flac")
    PAGE.write_text("\n".join(session.parts).rstrip() + "\n")


if __name__ == "__main__":
    main()
