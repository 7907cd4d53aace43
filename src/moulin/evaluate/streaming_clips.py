"""Recordings in chunks, as a microphone delivers them, and which chunk makes an encoder step possible.

A window of features is complete when the audio reaches half a frame length beyond its last frame's centre. moulin
decodes it then; sherpa-onnx (`OnlineRecognizer::IsReady`) waits for one frame more than the window has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import StreamingSpec
from moulin.errors import AudioError
from moulin.evaluate.utterance import Utterance

TAIL_SAMPLES = round(0.3 * SAMPLE_RATE)
"""The silence with which a stream's last words are flushed."""

_SHIFT = SAMPLE_RATE // 100
_HALF_FRAME_AND_SHIFT = (SAMPLE_RATE * 25 // 1000 + _SHIFT) // 2  # 25 ms frames every 10 ms, centred (snip_edges False)


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording, float32 [n], and the encoder steps that its chunks complete.

    `chunks` are all of `chunk_samples` but the last, which ends the stream and is measured by itself. `tail` is the
    silence that a peer needs behind the last chunk to take as many steps as moulin, which completes its last window
    by itself. `peer_steps` are the peer's steps after each chunk, counted from the start; `measured` are the chunks
    that allow both systems a step: others have no reply to wait for.
    """

    text: str
    chunks: tuple[NDArray[np.float32], ...]
    tail: NDArray[np.float32]
    peer_steps: tuple[int, ...]
    measured: tuple[bool, ...]
    id: str = ""
    whole: bool = False
    """Whether the recording is sent in one piece, to a system that takes no streams."""

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.chunks))


def read_clips(utterances: Sequence[Utterance], model: StreamingSpec | None, chunk_samples: int) -> list[Clip]:
    """Recordings in chunks; for an unknown `model` every chunk is measured. Raises AudioError."""
    return [cut(it.waveform(), it.text, model, chunk_samples, it.id or it.audio.stem) for it in utterances]


def whole_clips(utterances: Sequence[Utterance]) -> list[Clip]:
    """Recordings that are sent whole: clips of one chunk. Raises AudioError for files that cannot be read."""
    return [
        Clip(it.text, (it.waveform(),), np.zeros(0, dtype=np.float32), (1,), (True,), it.id or it.audio.stem, True)
        for it in utterances
    ]


def cut(
    samples: NDArray[np.float32], text: str, model: StreamingSpec | None, chunk_samples: int, name: str = ""
) -> Clip:
    if not len(samples):
        raise AudioError(f"Expected a recording to stream, got one without samples{f': {name}' if name else ''}")
    chunks = [samples[start : start + chunk_samples] for start in range(0, len(samples), chunk_samples)]
    if model is None:
        nothing = np.zeros(0, dtype=np.float32)
        return Clip(text, tuple(chunks), nothing, (), (*(True for _ in chunks[1:]), False), name)
    ends = [0, *np.cumsum([len(chunk) for chunk in chunks]).tolist()]
    ours = [steps(end, model.window_frames, model.chunk_frames) for end in ends]
    theirs = [steps(end, model.window_frames + 1, model.chunk_frames) for end in ends]
    both = [ours[i + 1] > ours[i] and theirs[i + 1] > theirs[i] for i in range(len(chunks))]
    tail = _peer_tail(len(samples), model)
    # At the end the peer's frames reach to the last sample, and it waits for no further frame.
    total = (len(samples) + len(tail) + _SHIFT // 2) // _SHIFT - model.window_frames - 1
    theirs[-1] = max(theirs[-1], 0 if total < 0 else total // model.chunk_frames + 1)
    return Clip(text, tuple(chunks), tail, tuple(theirs[1:]), (*both[:-1], False), name)


def steps(num_samples: int, window_frames: int, chunk_frames: int) -> int:
    """The number of complete windows of `window_frames`, each `chunk_frames` after the last, in `num_samples`."""
    frames = max(0, (num_samples - _HALF_FRAME_AND_SHIFT) // _SHIFT + 1)
    return 0 if frames < window_frames else (frames - window_frames) // chunk_frames + 1


def _peer_tail(num_samples: int, model: StreamingSpec) -> NDArray[np.float32]:
    """TAIL_SAMPLES and the silence that completes the last window with a frame of them (`WindowLayout.all_windows`)."""
    frames = (num_samples + TAIL_SAMPLES + _SHIFT // 2) // _SHIFT
    look_ahead = model.window_frames - model.chunk_frames
    windows = -(-(frames - look_ahead) // model.chunk_frames)
    wanted_frames = look_ahead + windows * model.chunk_frames + 1
    return np.zeros(wanted_frames * _SHIFT - num_samples, dtype=np.float32)
