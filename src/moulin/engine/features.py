"""Waveforms to features: the first part of offline recognition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from moulin.arrays import Floats
from moulin.audio.batched_fbank import BatchedFbank, frames_of
from moulin.audio.fbank import FbankOptions
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.bundle.spec import FRAME_SHIFT_SEC, ModelSpec
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.errors import AudioError

TAIL_PADDING_SEC = 0.3
"""Silence appended to every utterance: a recording that stops with the last sound loses its last word otherwise."""

_BLOCK_FRAMES = 256
"""Features are computed for so many frames in a call. With more, the spectra would not fit into a core's cache."""


def model_max_sec(spec: ModelSpec, tail_padding_sec: float = TAIL_PADDING_SEC) -> float:
    """The longest utterance for which an offline model was exported; infinity where any will do."""
    return _max_sec(spec.max_frames, tail_padding_sec)


def _max_sec(max_frames: int | None, tail_padding_sec: float) -> float:
    return math.inf if max_frames is None else max_frames * FRAME_SHIFT_SEC - tail_padding_sec


class FeatureExtractor:
    """Features of whole utterances, with silence appended. Safe to call from several threads."""

    def __init__(
        self,
        *,
        feature_dim: int,
        threads: int,
        max_frames: int | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
    ) -> None:
        """`max_frames` is the encoder's limit, and `max_audio_sec` the operator's. Raises EngineError where ONNX
        Runtime, which computes the features, does not work."""
        from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank

        self.max_audio_sec = max_audio_sec
        self._options = FbankOptions(num_mel_bins=feature_dim)
        self._fbank = OnnxRuntimeFbank(BatchedFbank(self._options), "cpu")
        self._tail = np.zeros(round(tail_padding_sec * SAMPLE_RATE), dtype=np.float32)
        self._model_max_sec = _max_sec(max_frames, tail_padding_sec)
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="moulin-fbank")

    def __call__(self, waveforms: Sequence[Floats]) -> list[Floats]:
        """Checked waveforms [num_samples] to features, float32 [T, feature_dim] each; T is 0 for no samples."""
        return list(self._workers.map(self._features, waveforms))

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`waveform`, which messages call `what`, as float32.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """
        waveform = check_waveform(waveform, what=what)
        duration_sec = len(waveform) / SAMPLE_RATE
        if duration_sec > self._model_max_sec:
            raise AudioError(
                f"{what}: expected at most {self._model_max_sec:.1f} s of audio at once, for which this model was "
                f"exported, got {duration_sec:.1f} s",
                hint="cut it at silences, as 'moulin transcribe' and the gateway do",
            )
        check_duration(duration_sec, self.max_audio_sec, what=what)
        return waveform

    @property
    def max_utterance_sec(self) -> float:
        """The longest waveform that `check` lets pass."""
        return min(self._model_max_sec, self.max_audio_sec)

    def close(self) -> None:
        """Stop the worker threads."""
        self._workers.shutdown()

    def _features(self, waveform: Floats) -> Floats:
        frames = frames_of(np.concatenate([waveform, self._tail]) if len(waveform) else waveform, self._options)
        blocks = [self._fbank(frames[first : first + _BLOCK_FRAMES]) for first in range(0, len(frames), _BLOCK_FRAMES)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self._options.num_mel_bins), np.float32)


def check_duration(duration_sec: float, max_audio_sec: float, *, what: str) -> None:
    """Raises AudioError for audio, which the message calls `what`, that is longer than the operator allows."""
    if duration_sec > max_audio_sec:
        raise AudioError(
            f"{what}: expected at most {max_audio_sec:g} s of audio at once, got {duration_sec:.1f} s",
            hint="cut it at silences, or raise --max-audio-sec where memory allows",
        )
