"""Flags for facts of a checkpoint that its tensors do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from moulin.errors import OptionsError
from moulin.options import Bounds, check_options, option

if TYPE_CHECKING:
    from moulin.encoders.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """`Recipe` as flags of the command line. Raises OptionsError."""

    help_section: ClassVar[str] = "Checkpoint"

    chunk_size: int | None = option(
        None,
        "Chunk of a streaming checkpoint, as its recipe counts it.",
        usual="what it was trained for",
        bounds=Bounds(at_least=1, at_most=1024),
    )
    left_context_frames: int | None = option(
        None,
        "What a chunk sees of the ones before, counted alike.",
        usual="what it was trained for",
        bounds=Bounds(at_least=0, at_most=8192),
    )
    right_context: int | None = option(
        None,
        "Frames of 40 ms that a streaming Conformer's chunk sees of the next one.",
        usual="0",
        bounds=Bounds(at_least=0, at_most=1024),
    )
    causal: bool | None = option(
        None,
        "Whether a Conformer or Zipformer (version 1) checkpoint was trained for streaming, where its own parameters "
        "do not say it; matters for whole utterances.",
    )
    num_heads: str | None = option(
        None,
        "Attention heads of a checkpoint, where its own parameters do not say them: a number, or one for each stack "
        "joined by commas.",
    )
    pos_head_dim: str | None = option(
        None,
        "The same by a head's channels for positions.",
        usual="what fits the recipe's",
    )

    def __post_init__(self) -> None:
        check_options(self)

    def recipe(self, *, streaming: bool) -> Recipe | None:
        """The recipe of the given flags; None without any. Raises OptionsError for an invalid number, and for sizes of
        chunks of a model that is not to stream; EngineError where PyTorch is missing."""
        sizes = {
            "--chunk-size": self.chunk_size,
            "--left-context-frames": self.left_context_frames,
            "--right-context": self.right_context,
        }
        if not streaming and any(size is not None for size in sizes.values()):
            raise OptionsError(f"{', '.join(sizes)} are for --streaming")
        heads, positions = _numbers("--num-heads", self.num_heads), _numbers("--pos-head-dim", self.pos_head_dim)
        if self == RecipeOptions():
            return None
        from moulin.bundle.checkpoint_files import require_torch

        require_torch()
        from moulin.encoders.recipe import Recipe

        return Recipe(
            causal=self.causal,
            num_heads=heads,
            pos_head_dim=positions,
            chunk_size=self.chunk_size,
            left_context_frames=self.left_context_frames,
            right_context=self.right_context,
        )


def _numbers(flag: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise OptionsError(f"Expected {flag} to be a positive number, or several joined by commas, got {text!r}")
    return numbers
