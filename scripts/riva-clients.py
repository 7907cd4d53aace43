#!/usr/bin/env python3
"""Runs a client of Riva's gRPC on a WAV file of one channel, and prints its versions and what it hears.

    python -m venv clients && clients/bin/pip install nvidia-riva-client livekit-plugins-nvidia 'pipecat-ai[nvidia]'
    moulin serve --riva-port 50051
    clients/bin/python scripts/riva-clients.py riva speech.wav       # or livekit, pipecat; --server localhost:50051

Needs nothing of moulin in its environment.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from importlib.metadata import version

from speaking import spoken_pieces, spoken_to_pipecat


def _riva(server: str, file: str) -> Iterator[tuple[str, str]]:
    """NVIDIA's own client: what Recognize says, and the final results of StreamingRecognize."""
    import riva.client

    service = riva.client.ASRService(riva.client.Auth(uri=server))
    rate, pieces = spoken_pieces(file)
    config = riva.client.RecognitionConfig(encoding="LINEAR_PCM", sample_rate_hertz=rate, language_code="en-US")
    for result in service.offline_recognize(b"".join(pieces), config).results:
        yield "recording", result.alternatives[0].transcript
    live = riva.client.StreamingRecognitionConfig(config=config, interim_results=True)
    for response in service.streaming_response_generator(pieces, live):
        for result in response.results:
            yield "final" if result.is_final else "interim", result.alternatives[0].transcript


async def _livekit(server: str, file: str) -> list[tuple[str, str]]:
    from livekit import rtc
    from livekit.plugins import nvidia

    rate, pieces = spoken_pieces(file)
    async with asyncio.timeout(60):
        stream = nvidia.STT(server=server, use_ssl=False, api_key="unused").stream()
        for piece in pieces:
            stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
        stream.flush()
        stream.end_input()
        heard = [(event.type.value, event.alternatives[0].text) async for event in stream if event.alternatives]
        await stream.aclose()
        return heard


async def _pipecat(server: str, file: str, *, segmented: bool) -> list[tuple[str, str]]:
    """The service for streams or the one for segments, with its usual settings."""
    from pipecat.services.nvidia import stt

    rate, pieces = spoken_pieces(file)
    kind = stt.NvidiaSegmentedSTTService if segmented else stt.NvidiaSTTService
    service = kind(api_key="unused", server=server, use_ssl=False, sample_rate=rate)
    return await spoken_to_pipecat(service, rate, pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", choices=("riva", "livekit", "pipecat"))
    parser.add_argument("file")
    parser.add_argument("--server", default="localhost:50051")
    chosen = parser.parse_args()
    packages = {"riva": "nvidia-riva-client", "livekit": "livekit-plugins-nvidia", "pipecat": "pipecat-ai"}
    print(packages[chosen.client], version(packages[chosen.client]))
    if chosen.client == "riva":
        heard = list(_riva(chosen.server, chosen.file))
    elif chosen.client == "livekit":
        heard = asyncio.run(_livekit(chosen.server, chosen.file))
    else:
        heard = asyncio.run(_pipecat(chosen.server, chosen.file, segmented=False))
        heard += asyncio.run(_pipecat(chosen.server, chosen.file, segmented=True))
    for kind, text in heard:
        print(f"{kind:24} {text}")


if __name__ == "__main__":
    main()
