"""Options of trainings as checkpoints have them: numbers, lists, and texts with commas."""

from __future__ import annotations

from typing import Any

import pytest

from moulin.bundle.parameters import as_parameters, is_trained_by, recipe_of
from moulin.encoders.recipe import Recipe
from moulin.errors import BundleError


@pytest.mark.parametrize(
    ("parameters", "recipe"),
    [
        ({"num_heads": "4,4,8", "causal": True}, Recipe(causal=True, num_heads=(4, 4, 8))),
        ({"num_heads": [4], "causal": "no"}, Recipe(causal=False, num_heads=(4,))),
        ({"pos_head_dim": 4, "feature_dim": "80"}, Recipe(pos_head_dim=(4,), feature_dim=80)),
        (
            {"chunk_size": "16,32,64,-1", "left_context_frames": "64,128,256,-1"},
            Recipe(None, chunk_size=16, left_context_frames=128),
        ),
        ({"chunk_size": "24,32", "left_context_frames": "64,96"}, Recipe(None, chunk_size=24, left_context_frames=96)),
        ({"chunk_size": "-1", "left_context_frames": "-1"}, Recipe()),
        ({"learning_rate": 0.045}, Recipe()),
    ],
)
def test_zipformer2(parameters: dict[str, Any], recipe: Recipe) -> None:
    found = recipe_of(parameters, "zipformer2")
    assert found == recipe
    assert recipe_of(as_parameters(found), "zipformer2") == found


def test_names_of_other_recipes() -> None:
    assert recipe_of({"nhead": "8,8", "decode_chunk_len": 32}, "zipformer").causal is True
    assert recipe_of({"causal_convolution": True}, "conformer").causal is True
    assert recipe_of({"chunk_size": 16, "feature_dim": 40}, "lstm") == Recipe(feature_dim=40)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_heads": "four"}, "num_heads .* to be a number, or several joined by commas, got 'four'"),
        ({"feature_dim": [80, 80]}, "feature_dim .* to be one number"),
        ({"causal": "perhaps"}, "causal .* to be True or False, got 'perhaps'"),
        ({"num_heads": {"a": 1}}, "num_heads"),
    ],
)
def test_values_of_other_types(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        recipe_of(parameters, "zipformer2")


def test_a_recipe_is_recognised_by_its_sizes() -> None:
    assert is_trained_by({"rnn_hidden_size": 1024}, "lstm")
    assert not is_trained_by({"rnn_hidden_size": 1024}, "conformer")
