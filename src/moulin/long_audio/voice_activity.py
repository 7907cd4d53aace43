"""Speech probability of every 32 ms: Silero VAD on ONNX Runtime.

`silero_vad.onnx` is `silero_vad_16k_sequence.onnx` of the PyPI package silero-vad 6.2.3 (MIT, SILERO_VAD_LICENSE;
sha256 9ccdacc4...). It is in the repository because that package depends on PyTorch. This form takes many frames a
call: one CPU thread processes 550 seconds of audio a second, without the interpreter lock; a call for each frame would
take twice the time and hold the lock.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.errors import EngineError
from moulin.extras import install_hint

FRAME_SAMPLES = 512
CONTEXT_SAMPLES = 64
"""Samples of the previous frame that are put before every frame."""

LEVEL_SHARE = 0.1
"""The part of a frame in the running mean: half of it is of the last 0.2 s."""

MODEL = Path(__file__).with_name("silero_vad.onnx")


class VoiceActivity:
    """The voice activity detector of one recording: a frame's probability depends on all frames before it."""

    def __init__(self) -> None:
        """Raises EngineError where ONNX Runtime is not installed."""
        self._session = _session()
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._hidden = self._cell = np.zeros((1, 1, 128), np.float32)
        self._level: float | None = None
        """The mean of the samples so far, with those of the last half second weighing most."""

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities [N] of the recording's next N frames: samples [N * FRAME_SAMPLES], 16 kHz, mono; N >= 1."""
        frames = self._without_dc(samples.reshape(-1, FRAME_SAMPLES))
        contexts = np.vstack([self._context, frames[:-1, -CONTEXT_SAMPLES:]])
        self._context = frames[-1, -CONTEXT_SAMPLES:].copy()
        inputs = {"input": np.hstack([contexts, frames]), "h": self._hidden, "c": self._cell}
        probabilities, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
        return np.asarray(probabilities, np.float32).reshape(-1)

    def _without_dc(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames less their running mean, without which the detector takes speech on a constant level for silence.

        The mean goes in a straight line from frame to frame: in steps it would be a sound of its own.
        """
        levels = [0.0] * (len(frames) + 1)
        for number, mean in enumerate(frames.mean(axis=1).tolist()):
            if self._level is None:
                self._level = mean
            levels[number] = self._level
            self._level += LEVEL_SHARE * (mean - self._level)
        levels[-1] = self._level or 0.0
        ends = np.array(levels, np.float32)
        slope = np.arange(FRAME_SAMPLES, dtype=np.float32) / FRAME_SAMPLES
        without: NDArray[np.float32] = frames - (ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * slope)
        return without


@cache
def _session() -> Any:
    """One session for all recordings; it runs in the callers' threads."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(
            "Long recordings need ONNX Runtime, which is not installed", hint=install_hint("gateway")
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
