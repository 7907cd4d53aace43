"""A WAV file as a speaker sends it, for the scripts that run other people's clients. Needs nothing of moulin."""

from __future__ import annotations

import asyncio
import wave
from typing import Any

PIECE_SEC = 0.02
_PAUSE_SEC = 2.0
"""Silence behind the recording, by which a client that goes on knows that speech has ended."""


def spoken_pieces(file: str) -> tuple[int, list[bytes]]:
    """The rate in Hz, and samples in 16 bits."""
    with wave.open(file) as recording:
        rate, data = recording.getframerate(), recording.readframes(recording.getnframes())
    data += bytes(2 * round(_PAUSE_SEC * rate))
    size = 2 * round(PIECE_SEC * rate)
    return rate, [data[at : at + size] for at in range(0, len(data), size)]


async def spoken_to_pipecat(service: Any, rate: int, pieces: list[bytes]) -> list[tuple[str, str]]:
    """The kinds and texts of the transcripts that a pipeline of pipecat's with this service makes."""
    from pipecat.frames import frames
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.frame_processor import FrameProcessor

    heard: list[tuple[str, str]] = []

    class Heard(FrameProcessor):  # type: ignore[misc]
        async def process_frame(self, frame: Any, direction: Any) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, frames.TranscriptionFrame | frames.InterimTranscriptionFrame):
                finalized = " (finalized)" if getattr(frame, "finalized", False) else ""
                heard.append((type(frame).__name__ + finalized, frame.text))
            await self.push_frame(frame, direction)

    task = PipelineTask(Pipeline([service, Heard()]), params=PipelineParams(audio_in_sample_rate=rate))

    async def speak() -> None:
        await asyncio.sleep(1)
        await task.queue_frame(frames.VADUserStartedSpeakingFrame())
        for piece in pieces:
            await task.queue_frame(frames.InputAudioRawFrame(audio=piece, sample_rate=rate, num_channels=1))
            await asyncio.sleep(PIECE_SEC / 2)
        await task.queue_frame(frames.VADUserStoppedSpeakingFrame())
        await asyncio.sleep(3)
        await task.queue_frame(frames.EndFrame())

    async with asyncio.timeout(60):
        await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), speak())
    return heard
