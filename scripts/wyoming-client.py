#!/usr/bin/env python3
"""Speaks Wyoming, Home Assistant's protocol, with wyoming_openai in front of moulin: on a WAV file of one channel in 16
bits, prints versions, what the service says of itself and what it hears. Needs Python 3.12 or later.

    python3.12 -m venv clients && clients/bin/pip install wyoming_openai
    moulin serve
    clients/bin/python scripts/wyoming-client.py speech.wav       # --server localhost:9000, --key KEY

Needs nothing of moulin in its environment. wyoming_openai is started, on a free port, and stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info

_PIECE_SEC = 0.1


@contextmanager
def _bridge(server: str, key: str, kind: str) -> Iterator[int]:
    """wyoming_openai as a process; its port. `kind` is the variable that names the model: how it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"STT_OPENAI_URL": f"http://{server}/v1", "STT_OPENAI_KEY": key, kind: "whisper-1"}
    command = [sys.executable, "-m", "wyoming_openai", "--uri", f"tcp://127.0.0.1:{port}"]
    process = subprocess.Popen(command, env={**os.environ, **settings})
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


async def _connected(port: int) -> AsyncTcpClient:
    for _ in range(100):
        client = AsyncTcpClient("127.0.0.1", port)
        try:
            await client.connect()
            return client
        except OSError:
            await asyncio.sleep(0.2)
    raise TimeoutError("wyoming_openai does not answer")


async def _heard(port: int, file: str) -> list[tuple[str, str]]:
    client, heard = await _connected(port), []
    await client.write_event(Describe().event())
    async with asyncio.timeout(60):
        while (event := await client.read_event()) is not None:
            if Info.is_type(event.type):
                models = [model.name for program in Info.from_event(event).asr for model in program.models]
                heard.append(("models", ", ".join(models)))
                break
        with wave.open(file) as recording:
            form = (recording.getframerate(), recording.getsampwidth(), recording.getnchannels())
            size = round(_PIECE_SEC * form[0])
            await client.write_event(Transcribe(name="whisper-1").event())
            await client.write_event(AudioStart(*form).event())
            while piece := recording.readframes(size):
                await client.write_event(AudioChunk(*form, piece).event())
            await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if TranscriptChunk.is_type(event.type):
                heard.append(("chunk", TranscriptChunk.from_event(event).text))
            elif Transcript.is_type(event.type):
                heard.append(("transcript", Transcript.from_event(event).text))
                break
    await client.disconnect()
    return heard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--server", default="localhost:9000")
    parser.add_argument("--key", default="unused")
    chosen = parser.parse_args()
    print("wyoming_openai", version("wyoming_openai"), "wyoming", version("wyoming"))
    for kind in ("STT_MODELS", "STT_STREAMING_MODELS", "STT_REALTIME_MODELS"):
        with _bridge(chosen.server, chosen.key, kind) as port:
            for what, text in asyncio.run(_heard(port, chosen.file)):
                print(f"{kind:24} {what:12} {text}")


if __name__ == "__main__":
    main()
