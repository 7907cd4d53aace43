"""Facts about a model beside its tensors, from the training's own parameters or from flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Facts that tensors do not, or not always, determine, under Icefall's names; None where a fact is not given.

    Tuples have one entry for each stack, or one for all of them (`per_stack`). Of a Zipformer2's four head sizes any
    one determines the other three.
    """

    causal: bool | None = None
    """Whether trained for streaming: a Zipformer2's `causal`, a Conformer's `causal_convolution`, or for the first
    Zipformer the recipe `pruned_transducer_stateless7_streaming`."""

    num_heads: tuple[int, ...] | None = None
    query_head_dim: tuple[int, ...] | None = None
    pos_head_dim: tuple[int, ...] | None = None
    value_head_dim: tuple[int, ...] | None = None

    feature_dim: int | None = None

    chunk_size: int | None = None
    """Chunk size of streaming, counted as in the recipe's export script, like the next two fields."""

    left_context_frames: int | None = None

    right_context: int | None = None
    """Encoder frames of the next chunk that a window of a Conformer contains too."""


NOTHING_SAID = Recipe()


def per_stack(name: str, values: Sequence[int], stacks: int) -> tuple[int, ...]:
    """`values` with one entry for each of `stacks`; a single one is repeated. Raises ValueError for other numbers."""
    if len(values) == 1:
        return tuple(values) * stacks
    if len(values) != stacks:
        raise ValueError(f"expected {name} to be one number or {stacks}, one for each stack, got {_listed(values)}")
    return tuple(values)


def feature_dim_of(recipe: Recipe, smallest: int) -> int:
    """The number of feature channels. Sizes `smallest` to `smallest + 3` give the same tensor shapes: the one in
    `recipe`, else the multiple of four (Icefall's is 80). Raises ValueError where `recipe` has another size."""
    said = recipe.feature_dim
    if said is None:
        return -(-smallest // 4) * 4
    if not smallest <= said <= smallest + 3:
        raise ValueError(
            f"expected feature_dim to be {smallest} to {smallest + 3}, as the shapes of tensors are, got {said}"
        )
    return said


def _listed(values: Sequence[int]) -> str:
    return ",".join(map(str, values)) or "none"
