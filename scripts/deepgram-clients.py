#!/usr/bin/env python3
"""Runs a client of Deepgram's API on a WAV file of one channel in 16 bits, and prints its version and what it hears.

    python -m venv clients && clients/bin/pip install deepgram-sdk livekit-plugins-deepgram 'pipecat-ai[deepgram]'
    moulin serve
    clients/bin/python scripts/deepgram-clients.py sdk speech.wav       # or livekit, pipecat; --server localhost:9000

Needs nothing of moulin in its environment. With `node`, and `npm install @deepgram/sdk` in the folder that --modules
names, it runs the JavaScript client.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speaking import PIECE_SEC, spoken_pieces, spoken_to_pipecat


def _sdk(server: str, key: str, file: str) -> Iterator[tuple[str, str]]:
    """Deepgram's own client: a recording, and a stream with interim results."""
    from deepgram import DeepgramClient
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment

    http, ws = f"http://{server}", f"ws://{server}"
    place = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
    client = DeepgramClient(api_key=key, environment=place)
    response = client.listen.v1.media.transcribe_file(
        request=Path(file).read_bytes(), model="nova-3", smart_format=True, utterances=True, paragraphs=True
    )
    yield "recording", response.results.channels[0].alternatives[0].transcript
    yield "utterances", " | ".join(utterance.transcript for utterance in response.results.utterances)

    rate, pieces = spoken_pieces(file)
    heard: list[tuple[str, str]] = []

    def take(message: Any) -> None:
        if message.type == "Results":
            text = message.channel.alternatives[0].transcript
            heard.append(("final" if message.is_final else "interim", text))
        else:
            heard.append((message.type, ""))

    with client.listen.v1.connect(
        model="nova-3", encoding="linear16", sample_rate=rate, interim_results=True, vad_events=True,
        utterance_end_ms=1000,
    ) as connection:  # fmt: skip
        connection.on(EventType.MESSAGE, take)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        for number, piece in enumerate(pieces):
            connection.send_media(piece)
            if number == 50:
                connection.send_finalize()
            if number % 50 == 0:
                connection.send_keep_alive()
            time.sleep(PIECE_SEC / 2)
        connection.send_close_stream()
        listening.join(60)
    yield from heard


async def _livekit(server: str, key: str, file: str) -> list[tuple[str, str]]:
    import aiohttp
    from livekit import rtc
    from livekit.plugins import deepgram

    rate, pieces = spoken_pieces(file)
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        stt = deepgram.STT(base_url=f"http://{server}/v1/listen", api_key=key, http_session=session)
        stream = stt.stream()

        async def speak() -> None:
            for piece in pieces:
                stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
                await asyncio.sleep(PIECE_SEC / 2)
            stream.flush()
            stream.end_input()

        speaking = asyncio.create_task(speak())
        heard = [
            (event.type.value, event.alternatives[0].text if event.alternatives else "")
            async for event in stream
            if event.type.value != "recognition_usage"
        ]
        await speaking
        await stream.aclose()
        whole = await stt.recognize(buffer=[rtc.AudioFrame(piece, rate, 1, len(piece) // 2) for piece in pieces])
        return [*heard, ("recording", whole.alternatives[0].text)]


async def _pipecat(server: str, key: str, file: str) -> list[tuple[str, str]]:
    from pipecat.services.deepgram.stt import DeepgramSTTService

    rate, pieces = spoken_pieces(file)
    service = DeepgramSTTService(api_key=key, base_url=f"ws://{server}", sample_rate=rate)
    return await spoken_to_pipecat(service, rate, pieces)


_JAVASCRIPT = """
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
const [modules, server, key, file] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { DeepgramClient } = require("@deepgram/sdk");
const environment = { base: `http://${server}`, production: `ws://${server}`, agent: `ws://${server}` };
const client = new DeepgramClient({ apiKey: key, environment });
const audio = readFileSync(file);
const whole = await client.listen.v1.media.transcribeFile(audio, { model: "nova-3" });
console.log("recording\\t" + whole.results.channels[0].alternatives[0].transcript);
const live = await client.listen.v1.connect({
  model: "nova-3", encoding: "linear16", sample_rate: audio.readUInt32LE(24), interim_results: "true",
  Authorization: `Token ${key}`,
});
const ended = new Promise((resolve) => {
  live.on("message", (message) => {
    if (message.type !== "Results") { console.log(message.type + "\\t"); }
    else { console.log((message.is_final ? "final" : "interim") + "\\t" + message.channel.alternatives[0].transcript); }
    if (message.type === "Metadata") { resolve(); }
  });
  live.on("error", (error) => { console.log("error\\t" + error.message); resolve(); });
});
live.connect();
await live.waitForOpen();
for (let at = 44; at < audio.length; at += 3200) { live.sendMedia(audio.subarray(at, at + 3200)); }
live.sendFinalize({ type: "Finalize" });
live.sendCloseStream({ type: "CloseStream" });
await ended;
live.close();
process.exit(0);
"""


def _node(server: str, key: str, file: str, modules: str) -> Iterator[tuple[str, str]]:
    """Deepgram's client for JavaScript: a recording and a stream."""
    command = ["node", "--input-type=module", "-", modules, server, key, file]
    done = subprocess.run(command, input=_JAVASCRIPT, capture_output=True, text=True, timeout=60, check=False)
    for line in done.stdout.splitlines():
        kind, _, text = line.partition("\t")
        yield kind, text
    if done.returncode:
        yield "failed", done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", choices=("sdk", "livekit", "pipecat", "node"))
    parser.add_argument("file")
    parser.add_argument("--server", default="localhost:9000")
    parser.add_argument("--key", default="unused")
    parser.add_argument("--modules", default="node_modules")
    chosen = parser.parse_args()
    place = (chosen.server, chosen.key, chosen.file)
    if chosen.client == "node":
        heard = list(_node(*place, str(Path(chosen.modules).resolve())))
    else:
        packages = {"sdk": "deepgram-sdk", "livekit": "livekit-plugins-deepgram", "pipecat": "pipecat-ai"}
        print(packages[chosen.client], version(packages[chosen.client]))
        if chosen.client == "sdk":
            heard = list(_sdk(*place))
        else:
            heard = asyncio.run(_livekit(*place) if chosen.client == "livekit" else _pipecat(*place))
    for kind, text in heard:
        print(f"{kind:24} {text}")


if __name__ == "__main__":
    main()
