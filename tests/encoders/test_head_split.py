"""Numbers of heads against every number that could be."""

from __future__ import annotations

import pytest

from moulin.encoders.head_split import HeadProducts, choose_heads, told_by_shapes
from moulin.encoders.recipe import Recipe


@pytest.mark.parametrize("products", [HeadProducts(128, 16, 48), HeadProducts(96, 12, 36), HeadProducts(35, 14, 21)])
def test_possible_heads_divide_all_three(products: HeadProducts) -> None:
    wanted = [heads for heads in range(1, max(products) + 1) if all(size % heads == 0 for size in products)]
    assert list(products.possible_heads) == wanted


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_usual_sizes_are_the_default(heads: int) -> None:
    products = HeadProducts(32 * heads, 4 * heads, 12 * heads)
    assert products.is_usual
    assert choose_heads([products], Recipe()) == (heads,)


@pytest.mark.parametrize(
    "recipe",
    [Recipe(num_heads=(2,)), Recipe(pos_head_dim=(8,)), Recipe(query_head_dim=(64,)), Recipe(value_head_dim=(24,))],
)
def test_any_one_size_determines_the_others(recipe: Recipe) -> None:
    assert choose_heads([HeadProducts(128, 16, 48)] * 3, recipe) == (2, 2, 2)


def test_a_single_possibility_needs_no_default() -> None:
    products = [HeadProducts(5, 7, 3)]
    assert told_by_shapes(products)
    assert choose_heads(products, Recipe()) == (1,)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(num_heads=(3,)), "num_heads says 3 for stack 0"),
        (Recipe(pos_head_dim=(0,)), "pos_head_dim says 0"),
        (Recipe(num_heads=(4,), query_head_dim=(16,)), "query_head_dim says 16 and num_heads says 4"),
        (Recipe(num_heads=(4, 4)), "one number or 1, one for each stack"),
    ],
)
def test_contradictions_are_named(recipe: Recipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_heads([HeadProducts(128, 16, 48)], recipe)


def test_unusual_sizes_need_a_flag() -> None:
    with pytest.raises(ValueError, match=r"1 or 7 heads may share.*--num-heads or --pos-head-dim"):
        choose_heads([HeadProducts(7, 49, 14)], Recipe())
