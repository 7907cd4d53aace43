"""What a person may say of a checkpoint that its tensors do not tell: options of all verbs that read one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.encoders.recipe import Recipe

CausalOption = Annotated[
    bool | None,
    typer.Option(
        "--causal/--no-causal",
        help="Whether a Conformer or Zipformer (version 1) checkpoint was trained for streaming, where its own "
        "parameters do not say it; matters for whole utterances.",
    ),
]
NumHeadsOption = Annotated[
    str | None,
    typer.Option(
        help="Attention heads of a checkpoint, where its own parameters do not say them: a number, or one for each "
        "stack joined by commas.",
    ),
]
PosHeadDimOption = Annotated[
    str | None,
    typer.Option(help="The same by a head's channels for positions.  [default: what fits the recipe's]"),
]
ChunkSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Chunk of a streaming checkpoint, as its recipe counts it.  [default: what it was trained for]",
    ),
]
LeftContextOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=8192,
        help="What a chunk sees of the ones before, counted alike.  [default: what it was trained for]",
    ),
]
RightContextOption = Annotated[
    int | None,
    typer.Option(
        min=0, max=1024, help="Frames of 40 ms that a streaming Conformer's chunk sees of the next one.  [default: 0]"
    ),
]


def recipe_of_options(
    *,
    causal: bool | None = None,
    num_heads: str | None = None,
    pos_head_dim: str | None = None,
    chunk_size: int | None = None,
    left_context_frames: int | None = None,
    right_context: int | None = None,
    streaming: bool,
) -> Recipe | None:
    """What the options say; None where none was given. Raises OptionsError for what is no number, and for sizes of
    chunks where nothing is to stream."""
    sizes = {
        "--chunk-size": chunk_size,
        "--left-context-frames": left_context_frames,
        "--right-context": right_context,
    }
    given = [flag for flag, size in sizes.items() if size is not None]
    if given and not streaming:
        raise OptionsError(f"{', '.join(sizes)} are for --streaming")
    heads, positions = _numbers("--num-heads", num_heads), _numbers("--pos-head-dim", pos_head_dim)
    if not given and causal is None and heads is None and positions is None:
        return None
    from moulin.bundle.checkpoint_files import require_torch

    require_torch()
    from moulin.encoders.recipe import Recipe

    return Recipe(
        causal=causal,
        num_heads=heads,
        pos_head_dim=positions,
        chunk_size=chunk_size,
        left_context_frames=left_context_frames,
        right_context=right_context,
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
