"""The spec of a model whose networks are other models of the repository, by way of config.pbtxt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moulin.bundle.files import Precision
from moulin.bundle.spec import ModelSpec, StreamingSpec
from moulin.bundle.tokens import read_tokens


@dataclass(frozen=True)
class ComponentsSpec(ModelSpec):
    """The facts that a search needs; only the model's tokens.txt is here."""

    bundle: str
    tokens_file: Path

    @classmethod
    def read(cls, values: Mapping[str, str], tokens_file: Path) -> ComponentsSpec:
        """The spec by the parameters `values` that `spec_parameters` wrote. Raises BundleError."""
        vocab_size = int(values["vocab_size"])
        windows = values.get("window_frames"), values.get("chunk_frames")
        return cls(
            family=values["family"],
            tokens=read_tokens(tokens_file, vocab_size),
            feature_dim=int(values["feature_dim"]),
            vocab_size=vocab_size,
            context_size=int(values["context_size"]),
            joiner_dim=int(values["joiner_dim"]),
            streaming=StreamingSpec(int(windows[0]), int(windows[1]), ()) if windows[0] and windows[1] else None,
            head="ctc" if values["head"] == "ctc" else "transducer",
            has_ctc_head=values["has_ctc_head"] == "true",
            bundle=values["bundle"],
            tokens_file=tokens_file,
        )

    @property
    def name(self) -> str:
        return self.bundle

    @property
    def file(self) -> Path:
        return self.tokens_file

    @property
    def all_files(self) -> tuple[Path, ...]:
        return (self.tokens_file,)

    @property
    def precision(self) -> Precision:
        return "fp32"

    @property
    def size_bytes(self) -> int:
        return self.tokens_file.stat().st_size

    @property
    def max_frames(self) -> int | None:
        return None


def spec_parameters(spec: ModelSpec) -> dict[str, str]:
    """The parameters that `ComponentsSpec.read` reads."""
    parameters = {
        "bundle": spec.name,
        "family": spec.family,
        "feature_dim": str(spec.feature_dim),
        "vocab_size": str(spec.vocab_size),
        "context_size": str(spec.context_size),
        "joiner_dim": str(spec.joiner_dim),
        "head": spec.head,
        "has_ctc_head": str(spec.has_ctc_head).lower(),
    }
    if spec.streaming is not None:
        parameters |= {
            "window_frames": str(spec.streaming.window_frames),
            "chunk_frames": str(spec.streaming.chunk_frames),
        }
    return parameters
