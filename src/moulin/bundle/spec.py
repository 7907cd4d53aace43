"""`ModelSpec`: everything that the rest of moulin knows about a model, read once from its files.

Dimensions, state shapes, chunk sizes and limits all derive from here; none is ever asked for as a flag.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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


def name_of(folder: Path) -> str:
    """The name of the model in `folder`: the folder's, or its parent's too where it only says which form it is."""
    path = folder.resolve()
    generic = path.name in ("offline", "streaming", "exp", "onnx", "model", "checkpoint")
    return f"{path.parent.name}/{path.name}" if generic else path.name


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
    def chunk_encoder_frames(self) -> int:
        """Encoder frames of a chunk."""
        return self.chunk_frames // SUBSAMPLING_FACTOR

    @property
    def state_bytes(self) -> int:
        """Bytes of encoder state a stream."""
        return sum(state.size_bytes for state in self.states)


@dataclass(frozen=True)
class ModelSpec(ABC):
    """A transducer on disk, whatever form it has there.

    `family` is the encoder's `model_type` (conformer, zipformer, zipformer2, lstm, or "unknown" where an offline
    export names none). `streaming` is None for an offline model.
    """

    family: str
    tokens: TokenTable
    feature_dim: int
    vocab_size: int
    context_size: int
    joiner_dim: int
    streaming: StreamingSpec | None

    @property
    @abstractmethod
    def file(self) -> Path:
        """The file that says in a folder which model is meant."""

    @property
    @abstractmethod
    def all_files(self) -> tuple[Path, ...]:
        """What has to be copied for the model to be elsewhere."""

    @property
    @abstractmethod
    def precision(self) -> Precision:
        """Of the encoder."""

    @property
    @abstractmethod
    def size_bytes(self) -> int: ...

    @property
    @abstractmethod
    def max_frames(self) -> int | None:
        """The longest input of an offline model, in feature frames; None where any will do."""

    @property
    def path(self) -> Path:
        """The model's folder."""
        return self.file.parent

    @property
    def name(self) -> str:
        return name_of(self.path)

    @property
    def mode(self) -> str:
        return "streaming" if self.streaming else "offline"

    @property
    def encoder_frame_sec(self) -> float:
        return SUBSAMPLING_FACTOR * FRAME_SHIFT_SEC


@dataclass(frozen=True)
class OnnxModelSpec(ModelSpec):
    """Three ONNX files. Built by `load_bundle`, which has checked that they fit together."""

    files: BundleFiles
    encoder: OnnxGraph
    decoder: OnnxGraph
    joiner: OnnxGraph

    @property
    def file(self) -> Path:
        return self.files.encoder

    @property
    def all_files(self) -> tuple[Path, ...]:
        graphs = (self.encoder, self.decoder, self.joiner)
        files = [self.files.tokens, *(file for graph in graphs for file in (graph.file, *graph.external_files))]
        if self.files.bpe_model not in (None, self.files.tokens):
            files.append(self.files.bpe_model)
        return tuple(files)

    @property
    def precision(self) -> Precision:
        return self.files.precision

    @property
    def max_frames(self) -> int | None:
        """What the offline encoder was exported for.

        Conformer attends at 25 Hz, ((T-1)//2-1)//2 steps; Zipformer's first stack at 50 Hz, (T-7)//2 steps.
        """
        steps = self.encoder.max_positions
        if steps is None or self.streaming:
            return None
        return 4 * steps + 6 if self.family == "conformer" else 2 * steps + 8

    @property
    def size_bytes(self) -> int:
        return self.encoder.size_bytes + self.decoder.size_bytes + self.joiner.size_bytes


@dataclass(frozen=True)
class CheckpointSpec(ModelSpec):
    """A checkpoint, and its tokens.txt or bpe.model. Built by `load_checkpoint_spec`, which has read it once."""

    checkpoint: Path
    tokens_file: Path
    run_in: Precision | None = None
    """The precision that was asked for; None leaves it to the engine."""
    doubts: tuple[str, ...] = ()
    """What was taken for granted of it, a sentence each."""

    @property
    def file(self) -> Path:
        return self.checkpoint

    @property
    def all_files(self) -> tuple[Path, ...]:
        return self.checkpoint, self.tokens_file

    @property
    def precision(self) -> Precision:
        return self.run_in or "fp32"

    @property
    def max_frames(self) -> int | None:
        """Positions are computed from the length: any will do."""
        return None

    @property
    def size_bytes(self) -> int:
        return self.checkpoint.stat().st_size
