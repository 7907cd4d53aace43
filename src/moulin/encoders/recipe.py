"""What is said of a model beside its tensors: by the training's own parameters, or by a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Facts that tensors do not tell, or not always, under Icefall's names; None where nothing is said.

    Tuples have one entry for each stack, or one for all of them (`per_stack`). Where a Zipformer2's heads are, any one
    of the four head sizes tells the other three.
    """

    causal: bool | None = None
    """Trained for streaming: a Zipformer2's `causal`, a Conformer's `causal_convolution`, of the first Zipformer the
    recipe `pruned_transducer_stateless7_streaming`."""

    num_heads: tuple[int, ...] | None = None
    query_head_dim: tuple[int, ...] | None = None
    pos_head_dim: tuple[int, ...] | None = None
    value_head_dim: tuple[int, ...] | None = None

    feature_dim: int | None = None

    chunk_size: int | None = None
    """Of streams, as the recipe's export script counts it; also the next two."""

    left_context_frames: int | None = None

    right_context: int | None = None
    """Encoder frames that a chunk of a Conformer sees of the next one."""


NOTHING_SAID = Recipe()


def per_stack(name: str, values: Sequence[int], stacks: int) -> tuple[int, ...]:
    """`values` for each of `stacks`, where one stands for all. Raises ValueError for another number of values."""
    if len(values) == 1:
        return tuple(values) * stacks
    if len(values) != stacks:
        raise ValueError(f"expected {name} to be one number or {stacks}, one for each stack, got {_listed(values)}")
    return tuple(values)


def feature_dim_of(recipe: Recipe, smallest: int) -> int:
    """The features' channels: the four sizes from `smallest` on lead to the same shapes. What `recipe` says, else the
    multiple of four, as Icefall's 80 is. Raises ValueError where `recipe` says another size."""
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
