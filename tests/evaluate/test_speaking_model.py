"""Models with random weights that emit as much as speech."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.encoders.conformer import Conformer, ConformerConfig
from moulin.encoders.recipe import Recipe
from moulin.encoders.zipformer2 import Zipformer2
from moulin.evaluate import published_sizes, speaking_model
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.speaking_model import TOKENS_A_FRAME, blank_penalty, write_speaking_model
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer

pytestmark = pytest.mark.needs("torch")


def use_tiny(monkeypatch: pytest.MonkeyPatch, *, causal: bool) -> None:
    def tiny() -> Zipformer2:
        return published_sizes._zipformer2((1,) * 6, (32,) * 6, (48,) * 6, causal=causal)

    monkeypatch.setitem(published_sizes.SIZES, "tiny", tiny)
    monkeypatch.setattr(speaking_model, "demo_clips", lambda: demo_clips()[:1])
    monkeypatch.setattr(speaking_model, "_HALVINGS", 2)


def test_the_penalty_is_found_by_halving() -> None:
    assert blank_penalty(lambda penalty: 0.02 * (penalty + 9)) == pytest.approx(TOKENS_A_FRAME / 0.02 - 9, abs=0.02)


def test_an_offline_one_is_a_model_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny(monkeypatch, causal=False)
    write_speaking_model("tiny", tmp_path, streaming=False)
    with open_recognizer(tmp_path) as recognizer:
        assert recognizer.spec.streaming is None


def test_a_causal_one_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny(monkeypatch, causal=True)
    write_speaking_model("tiny", tmp_path, streaming=True)
    with open_stream_recognizer(tmp_path, max_streams=2) as recognizer:
        assert recognizer.num_open == 0


def test_the_recipe_is_in_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and right context that the tensors do not tell."""

    def tiny() -> Conformer:
        encoder = Conformer(ConformerConfig(1, 32, 4, 48, 7, causal=True))
        encoder.recipe = Recipe(causal=True, chunk_size=8, left_context_frames=24, right_context=2)
        return encoder

    use_tiny(monkeypatch, causal=True)
    monkeypatch.setitem(published_sizes.SIZES, "tiny", tiny)
    write_speaking_model("tiny", tmp_path, streaming=True)
    spec = load_checkpoint_spec(tmp_path, streaming=True)
    assert spec.streaming is not None
    assert (spec.streaming.chunk_frames, spec.streaming.window_frames) == (32, 51)
    assert spec.streaming.states[0].shape[2] == 24
    assert not spec.doubts
