"""`ModelSpec`: all facts about a model, read once from its files.

Dimensions, state shapes, chunk sizes and limits all derive from it; none is a command line flag.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from moulin.bundle.choice import Head
from moulin.bundle.files import BundleFiles, Precision
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.tokens import TokenTable

FRAME_SHIFT_SEC = 0.01
SUBSAMPLING_FACTOR = 4
"""Every Icefall encoder served turns 100 feature frames a second into 25 encoder frames (40 ms each)."""

MIN_FRAMES = 9
"""The fewest feature frames that give an encoder frame after subsampling; shorter input is padded to this length."""


def name_of(folder: Path) -> str:
    """The name of the model in `folder`: the folder's name, with its parent's before it where it is generic (`exp`)."""
    path = folder.resolve()
    generic = path.name in ("offline", "streaming", "exp", "onnx", "model", "checkpoint")
    return f"{path.parent.name}/{path.name}" if generic else path.name


@dataclass(frozen=True, slots=True)
class StateSpec:
    """One recurrent state of a streaming encoder, initially zero; `shape` has size 1 at `batch_axis`.

    `output` is the encoder's output with the next value. Where there is none (the Conformer's `processed_lens`), the
    caller of the encoder adds `increment` after every chunk.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: int
    output: str | None = None
    increment: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes for each stream."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class StreamingSpec:
    """The input of a streaming encoder: windows of `window_frames`, each `chunk_frames` after the last (10 ms each)."""

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
        """Bytes of encoder state for each stream."""
        return sum(state.size_bytes for state in self.states)


@dataclass(frozen=True)
class ModelSpec(ABC):
    """A transducer on disk, as ONNX files or as a checkpoint.

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
    head: Head = field(default="transducer", kw_only=True)
    """What decodes the encoder's frames. With a CTC head they are log-probabilities [T', vocab_size], and context_size
    and joiner_dim are 0."""
    has_ctc_head: bool = field(default=False, kw_only=True)
    """Whether the encoder of a transducer gives a CTC head's log-probabilities too, by which blank frames can be
    skipped."""

    @property
    @abstractmethod
    def file(self) -> Path:
        """The file by which the model can be named: the encoder or the checkpoint."""

    @property
    @abstractmethod
    def all_files(self) -> tuple[Path, ...]:
        """All files that a copy of the model needs."""

    @property
    @abstractmethod
    def precision(self) -> Precision:
        """The encoder's precision."""

    @property
    @abstractmethod
    def size_bytes(self) -> int: ...

    @property
    @abstractmethod
    def max_frames(self) -> int | None:
        """The longest input of an offline model in feature frames; None without a limit."""

    @property
    def frame_channels(self) -> int:
        """Channels of a frame that a search takes: for the joiner, or log-probabilities of a CTC head."""
        return self.vocab_size if self.head == "ctc" else self.joiner_dim

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
    """Three ONNX files. Built by `load_bundle`, which checks that they fit together."""

    files: BundleFiles
    encoder: OnnxGraph
    decoder: OnnxGraph
    joiner: OnnxGraph
    ctc_output: str | None = None
    """The encoder's tensor with the CTC head's log-probabilities [N, T', vocab_size]."""
    run_in: Precision | None = None
    """The precision in which PyTorch or our GPU engine runs the network that the files hold (`bundle.onnx_weights`);
    None where a runtime runs the files themselves."""

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
    def tokens_file(self) -> Path:
        return self.files.tokens

    @property
    def out(self) -> str:
        """The encoder's output with the frames [N, T', joiner_dim]."""
        return self.encoder.output("encoder_out", 0).name

    @property
    def precision(self) -> Precision:
        return self.run_in or self.files.precision

    @property
    def max_frames(self) -> int | None:
        if self.streaming or self.run_in:  # a network computes the positions that a file has a table of
            return None
        return _covered_frames(self.encoder, self.family)

    @property
    def size_bytes(self) -> int:
        return self.encoder.size_bytes + self.decoder.size_bytes + self.joiner.size_bytes


@dataclass(frozen=True)
class CtcModelSpec(ModelSpec):
    """An ONNX file with a CTC head, which is decoded instead of a transducer: a CTC export of Icefall's, or an encoder
    that `moulin export` wrote with both heads. Built by `load_onnx_model`."""

    encoder: OnnxGraph
    out: str
    """The output with the log-probabilities [N, T', vocab_size]."""
    tokens_file: Path
    file_precision: Precision
    ctc_output: ClassVar[None] = None
    """As in `OnnxModelSpec`, which has frames for a joiner beside the log-probabilities."""

    @property
    def file(self) -> Path:
        return self.encoder.file

    @property
    def all_files(self) -> tuple[Path, ...]:
        return self.encoder.file, *self.encoder.external_files, self.tokens_file

    @property
    def precision(self) -> Precision:
        return self.file_precision

    @property
    def max_frames(self) -> int | None:
        return None if self.streaming else _covered_frames(self.encoder, self.family)

    @property
    def size_bytes(self) -> int:
        return self.encoder.size_bytes


ExportedSpec = OnnxModelSpec | CtcModelSpec
"""The specs of models that are ONNX files."""


@dataclass(frozen=True)
class CheckpointSpec(ModelSpec):
    """A checkpoint, and its tokens.txt or bpe.model. Built by `load_checkpoint_spec`, which checks them."""

    checkpoint: Path
    tokens_file: Path
    run_in: Precision | None = None
    """The requested precision; None leaves it to the engine."""
    doubts: tuple[str, ...] = ()
    """Unconfirmed assumptions about the model, one sentence each."""

    @property
    def file(self) -> Path:
        return self.checkpoint

    @property
    def all_files(self) -> tuple[Path, ...]:
        bpe_model = self.tokens.bpe_model
        more = () if bpe_model in (None, self.tokens_file) else (bpe_model,)
        return self.checkpoint, self.tokens_file, *more

    @property
    def precision(self) -> Precision:
        return self.run_in or "fp32"

    @property
    def max_frames(self) -> int | None:
        """None: position encodings are computed for any length."""
        return None

    @property
    def size_bytes(self) -> int:
        return self.checkpoint.stat().st_size


def _covered_frames(encoder: OnnxGraph, family: str) -> int | None:
    """The longest input that an offline encoder's position encodings cover, in feature frames; None without a limit.

    Conformer attends at 25 Hz, ((T-1)//2-1)//2 steps; Zipformer's first stack at 50 Hz, (T-7)//2 steps.
    """
    steps = encoder.max_positions
    if steps is None:
        return None
    return 4 * steps + 6 if family == "conformer" else 2 * steps + 8
