"""The numbers of heads of a Zipformer2's stacks, of which tensor shapes determine only products.

A stack's projections have heads * query_head_dim, heads * pos_head_dim and heads * value_head_dim channels. Every
common divisor of the three is a possible number of heads: four heads of eight channels have the same shapes as eight
heads of four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from moulin.encoders.recipe import Recipe, per_stack

# Defaults of zipformer/train.py.
QUERY_HEAD_DIM = 32
POS_HEAD_DIM = 4
VALUE_HEAD_DIM = 12


class HeadProducts(NamedTuple):
    """A stack's number of heads times the size of a head for queries (and keys), positions and values."""

    query: int
    position: int
    value: int

    def head_dims(self, heads: int) -> tuple[int, int, int]:
        return self.query // heads, self.position // heads, self.value // heads

    @property
    def possible_heads(self) -> tuple[int, ...]:
        common = math.gcd(*self)
        return tuple(heads for heads in range(1, common + 1) if common % heads == 0)

    @property
    def by_default(self) -> int | None:
        """The number of heads that gives the most of the recipe's three default sizes; among several, one that gives
        the default `pos_head_dim`. None where no number gives any of them."""
        usual = (QUERY_HEAD_DIM, POS_HEAD_DIM, VALUE_HEAD_DIM)

        def kept(heads: int) -> tuple[int, bool]:
            dims = self.head_dims(heads)
            return sum(size == default for size, default in zip(dims, usual, strict=True)), dims[1] == POS_HEAD_DIM

        best = max(self.possible_heads, key=kept)
        return best if kept(best)[0] else None

    @property
    def is_usual(self) -> bool:
        """Whether a split into heads of exactly the recipe's default sizes is possible."""
        heads = self.by_default
        return heads is not None and self.head_dims(heads) == (QUERY_HEAD_DIM, POS_HEAD_DIM, VALUE_HEAD_DIM)


def told_by_shapes(products: Sequence[HeadProducts]) -> bool:
    """Whether only one split of every stack is possible."""
    return all(len(stack.possible_heads) == 1 for stack in products)


def choose_heads(products: Sequence[HeadProducts], recipe: Recipe) -> tuple[int, ...]:
    """The number of heads of each stack: from the sizes in `recipe`, else the only possible one, else the default.

    Raises ValueError where `recipe` contradicts the shapes, and where it has no size and the defaults do not fit.
    """
    said = {
        name: per_stack(name, values, len(products))
        for name, values in (
            ("num_heads", recipe.num_heads),
            ("pos_head_dim", recipe.pos_head_dim),
            ("query_head_dim", recipe.query_head_dim),
            ("value_head_dim", recipe.value_head_dim),
        )
        if values is not None
    }
    chosen = []
    for stack, sizes in enumerate(products):
        of_stack = {name: values[stack] for name, values in said.items()}
        chosen.append(_by_what_is_said(stack, sizes, of_stack) if of_stack else _by_default(stack, sizes))
    return tuple(chosen)


_PRODUCTS = {"query_head_dim": 0, "pos_head_dim": 1, "value_head_dim": 2}


def _by_what_is_said(stack: int, products: HeadProducts, said: dict[str, int]) -> int:
    name, size = next(iter(said.items()))
    product = products[_PRODUCTS[name]] if name in _PRODUCTS else 0
    # 0 stands for "no number of heads fits" and is refused below.
    heads = size if name == "num_heads" else product // size if size > 0 and product % size == 0 else 0
    if heads not in products.possible_heads:
        raise ValueError(
            f"{name} says {size} for stack {stack}, whose tensors have {_described(products)} "
            f"and so {_listed(products.possible_heads)} heads"
        )
    for other, value in said.items():
        if other in _PRODUCTS and value * heads != products[_PRODUCTS[other]]:
            raise ValueError(
                f"{other} says {value} and {name} says {size} for stack {stack}, whose tensors have "
                f"{_described(products)}"
            )
    return heads


def _by_default(stack: int, products: HeadProducts) -> int:
    if len(products.possible_heads) == 1:
        return products.possible_heads[0]
    heads = products.by_default
    if heads is None:
        raise ValueError(
            f"stack {stack} has {_described(products)}, which {_listed(products.possible_heads)} heads may share, and "
            "none of these numbers gives the recipe's default sizes: give moulin export or serve --num-heads or "
            "--pos-head-dim"
        )
    return heads


def _described(products: HeadProducts) -> str:
    query, position, value = products
    return f"{query} channels for queries, {position} for positions and {value} for values"


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))
