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
import wave
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

_PIECE_SEC = 0.02
_PAUSE_SEC = 2.0
"""Silence behind the recording, by which a client that goes on knows that speech has ended."""


def _pieces(file: str) -> tuple[int, list[bytes]]:
    """The rate in Hz, and samples in 16 bits."""
    with wave.open(file) as recording:
        rate, data = recording.getframerate(), recording.readframes(recording.getnframes())
    data += bytes(2 * round(_PAUSE_SEC * rate))
    size = 2 * round(_PIECE_SEC * rate)
    return rate, [data[at : at + size] for at in range(0, len(data), size)]


def _riva(server: str, file: str) -> Iterator[tuple[str, str]]:
    """NVIDIA's own client: what Recognize says, and the final results of StreamingRecognize."""
    import riva.client

    service = riva.client.ASRService(riva.client.Auth(uri=server))
    rate, pieces = _pieces(file)
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

    rate, pieces = _pieces(file)
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
    from pipecat.frames import frames
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.services.nvidia import stt

    heard: list[tuple[str, str]] = []

    class Heard(FrameProcessor):  # type: ignore[misc]
        async def process_frame(self, frame: Any, direction: Any) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, frames.TranscriptionFrame | frames.InterimTranscriptionFrame):
                heard.append((type(frame).__name__, frame.text))
            await self.push_frame(frame, direction)

    rate, pieces = _pieces(file)
    kind = stt.NvidiaSegmentedSTTService if segmented else stt.NvidiaSTTService
    service = kind(api_key="unused", server=server, use_ssl=False, sample_rate=rate)
    task = PipelineTask(Pipeline([service, Heard()]), params=PipelineParams(audio_in_sample_rate=rate))

    async def speak() -> None:
        await asyncio.sleep(1)
        await task.queue_frame(frames.VADUserStartedSpeakingFrame())
        for piece in pieces:
            await task.queue_frame(frames.InputAudioRawFrame(audio=piece, sample_rate=rate, num_channels=1))
            await asyncio.sleep(_PIECE_SEC / 2)
        await task.queue_frame(frames.VADUserStoppedSpeakingFrame())
        await asyncio.sleep(3)
        await task.queue_frame(frames.EndFrame())

    async with asyncio.timeout(60):
        await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), speak())
    return heard


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
