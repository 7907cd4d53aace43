"""`ModelSpec`: everything that the rest of moulin knows about a model, read once from its files.

Dimensions, state shapes, chunk sizes and limits all derive from here; none is ever asked for as a flag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moulin.bundle.files import BundleFiles, Precision
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.tokens import TokenTable

FRAME_SHIFT_SEC = 0.01
SUBSAMPLING_FACTOR = 4
"""Every Icefall encoder served here turns 100 feature frames a second into 25 (40 ms each)."""

MIN_FRAMES = 9
"""Fewer feature frames than this leave nothing after subsampling; shorter input is padded up to it."""


@dataclass(frozen=True, slots=True)
class StateSpec:
    """One recurrent state of a streaming encoder; `shape` has 1 where the batch goes. All start as zeros.

    `output` is the encoder's output with the next value. Where it has none (the Conformer's `processed_lens`) whoever
    runs the encoder adds `increment` after every chunk.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: int
    output: str | None = None
    increment: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes a stream."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class StreamingSpec:
    """How a streaming encoder is fed: `window_frames` at a time, advancing by `chunk_frames` (10 ms each)."""

    window_frames: int
    chunk_frames: int
    states: tuple[StateSpec, ...]

    @property
    def chunk_sec(self) -> float:
        return self.chunk_frames * FRAME_SHIFT_SEC

    @property
    def state_bytes(self) -> int:
        """Bytes of encoder state a stream."""
        return sum(state.size_bytes for state in self.states)


@dataclass(frozen=True)
class ModelSpec:
    """A transducer on disk. Built by `load_bundle`, which has checked that its parts fit together.

    `family` is the encoder's `model_type` (conformer, zipformer, zipformer2, lstm, or "unknown" where an offline
    export names none). `streaming` is None for an offline model.
    """

    files: BundleFiles
    family: str
    encoder: OnnxGraph
    decoder: OnnxGraph
    joiner: OnnxGraph
    tokens: TokenTable
    feature_dim: int
    vocab_size: int
    context_size: int
    joiner_dim: int
    streaming: StreamingSpec | None

    @property
    def path(self) -> Path:
        return self.files.directory

    @property
    def name(self) -> str:
        """The folder's name, or its parent's too where the folder only says which form it is."""
        path = self.path.resolve()
        generic = path.name in ("offline", "streaming", "exp", "onnx", "model")
        return f"{path.parent.name}/{path.name}" if generic else path.name

    @property
    def precision(self) -> Precision:
        return self.files.precision

    @property
    def mode(self) -> str:
        return "streaming" if self.streaming else "offline"

    @property
    def encoder_frame_sec(self) -> float:
        return SUBSAMPLING_FACTOR * FRAME_SHIFT_SEC

    @property
    def max_frames(self) -> int | None:
        """The longest input that the offline encoder was exported for, in feature frames; None where any will do.

        Conformer attends at 25 Hz, ((T-1)//2-1)//2 steps; Zipformer's first stack at 50 Hz, (T-7)//2 steps.
        """
        steps = self.encoder.max_positions
        if steps is None or self.streaming:
            return None
        return 4 * steps + 6 if self.family == "conformer" else 2 * steps + 8

    @property
    def size_bytes(self) -> int:
        return self.encoder.size_bytes + self.decoder.size_bytes + self.joiner.size_bytes
