"""Cuts of recordings that were decoded whole: where they are transcribed, many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.waveform import SAMPLE_RATE
from moulin.bulk.schema import DecodedRecording
from moulin.long_audio.cut_points import cut_points
from moulin.long_audio.cutter import Piece
from moulin.long_audio.voice_activity import FRAME_SAMPLES, VoiceActivity

Samples = NDArray[np.int16]
Probabilities = Callable[[Sequence[Samples]], list[Floats]]
"""Maps recordings, int16 at 16 kHz, to the speech probability of each frame."""


def cut_long(
    recordings: Sequence[DecodedRecording], max_piece_sec: float, probabilities: Callable[[], Probabilities]
) -> list[DecodedRecording]:
    """`recordings` with pieces of at most `max_piece_sec`: longer ones are cut at silences, as by `Pieces`.

    `probabilities` is only called where there are longer ones. Samples stay views of the same memory.
    """
    longest = max_piece_sec * SAMPLE_RATE
    long = [samples for recording in recordings for _, samples in recording.pieces if len(samples) > longest]
    if not long:
        return list(recordings)
    found = iter(probabilities()(long))

    def parts(piece: Piece, samples: Samples) -> list[tuple[Piece, Samples]]:
        if len(samples) <= longest:
            return [(piece, samples)]
        return [
            (replace(piece, start_samples=piece.start_samples + begin), samples[begin:end])
            for begin, end in cut_points(next(found), len(samples), max_piece_sec)
        ]

    return [
        replace(recording, pieces=[part for piece in recording.pieces for part in parts(*piece)])
        for recording in recordings
    ]


def voice_activity(device: str) -> Probabilities:
    """Silero's network on `device`, for many recordings at once where PyTorch is here, else one by one on the CPU."""
    try:
        import torch

        from moulin.long_audio.batched_voice_activity import BatchedVoiceActivity
    except ModuleNotFoundError:
        return one_by_one
    return BatchedVoiceActivity(device if torch.cuda.is_available() else "cpu")


def one_by_one(recordings: Sequence[Samples]) -> list[Floats]:
    """`VoiceActivity` of each recording. Raises EngineError where ONNX Runtime is missing."""
    return [VoiceActivity()(_whole_frames(samples)) for samples in recordings]


def _whole_frames(samples: Samples) -> Any:
    return np.pad(samples.astype(np.float32) / 32768, (0, -len(samples) % FRAME_SAMPLES))
