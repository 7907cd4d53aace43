"""Origins of a checkpoint's facts, and errors where facts contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from moulin.bundle.facts import FLAGS
from moulin.bundle.transducer import LoadedModel, load_with_facts
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.recipe import Recipe
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer2 import Zipformer2, Zipformer2Config
from moulin.errors import BundleError, OptionsError
from tests.bundles import BUNDLES
from tests.icefall import CASES, with_parameters


def state_dict(bundle: str) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(BUNDLES / bundle / "epoch-1.pt", weights_only=True)["model"]
    return model


def read(folder: Path, bundle: str, recipe: Recipe | None = None, **parameters: Any) -> LoadedModel:
    torch.save({"model": state_dict(bundle), **parameters}, folder / "epoch-1.pt")
    return load_with_facts([folder / "epoch-1.pt"], recipe=recipe or Recipe())


def sources(loaded: LoadedModel) -> dict[str, tuple[object, str]]:
    return {fact.name: (fact.value, fact.source) for fact in loaded.facts}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_parameters_say_comes_from_them(case: Any, tmp_path: Path) -> None:
    """The rest from shapes, and sizes of chunks of which training says nothing from the recipe."""
    loaded = load_with_facts([with_parameters(case, tmp_path / "epoch-1.pt")])
    facts = {name: source for name, (_, source) in sources(loaded).items()}
    assert {facts[name] for name in ("context_size", "vocab_size", "feature_dim")} == {"parameters"}
    if case.bundle.startswith("zipformer2"):
        assert {facts[name] for name in ("num_heads", "pos_head_dim", "value_head_dim")} == {"parameters"}
    assert {source for name, source in facts.items() if name in ("decoder_dim", "joiner_dim")} == {"parameters"}
    if case.bundle.startswith("conformer-streaming"):
        assert facts["causal"] == "parameters"
        assert facts["right_context"] == "recipe's default"
    assert "flag" not in facts.values()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensors_that_belong_to_nothing_are_doubted(case: Any, tmp_path: Path) -> None:
    """Not those that only training uses, which every genuine checkpoint has."""
    file = with_parameters(case, tmp_path / "epoch-1.pt")
    assert load_with_facts([file]).doubts(streaming=case.streaming) == []
    content = torch.load(file, weights_only=True)
    content["model"] |= {"decoder.adapter.weight": torch.ones(3), "joiner.adapter.bias": torch.ones(3)}
    torch.save(content, file)
    [doubt] = load_with_facts([file]).doubts(streaming=case.streaming)
    assert "'decoder.adapter.weight' and 1 more of its tensors are of no" in doubt


def test_a_transducer_that_separates_speakers_is_refused(tmp_path: Path) -> None:
    model = state_dict("zipformer-offline") | {"mask_encoder.rnn.weight": torch.ones(3)}
    torch.save({"model": model}, tmp_path / "epoch-1.pt")
    with pytest.raises(BundleError, match=r"'mask_encoder\.\*': it separates people who speak at once"):
        load_with_facts([tmp_path / "epoch-1.pt"])


@pytest.mark.parametrize("flag", ["num_heads", "pos_head_dim"])
def test_a_flag_says_what_shapes_leave_open(flag: str, tmp_path: Path) -> None:
    bare = read(tmp_path, "zipformer2-offline-pos8")
    assert sources(bare)["num_heads"] == ((8, 8), "recipe's default")
    [doubt] = bare.doubts(streaming=False)
    assert "num_heads 8,8 with pos_head_dim 4,4" in doubt
    assert "--num-heads" in doubt
    assert "--pos-head-dim" in doubt
    recipe = Recipe(num_heads=(4,)) if flag == "num_heads" else Recipe(pos_head_dim=(8, 8))
    told = read(tmp_path, "zipformer2-offline-pos8", recipe)
    assert told.doubts(streaming=False) == []
    assert sources(told)["num_heads"] == ((4, 4), "flag" if flag == "num_heads" else "shapes")
    assert sources(told)["pos_head_dim"] == ((8, 8), "flag" if flag == "pos_head_dim" else "shapes")
    assert sources(told)["query_head_dim"] == ((8, 8), "shapes")


def zipformer2(query: int, position: int, value: int, heads: tuple[int, ...] = (4, 8)) -> dict[str, torch.Tensor]:
    config = Zipformer2Config(
        (1, 1), (1, 2), (24, 24), heads, (query,) * 2, (value,) * 2, (16, 16), (3, 3), pos_dim=8,
        pos_head_dims=(position,) * 2, embed_channels=(2, 2, 2),
    )  # fmt: skip
    encoder = Zipformer2(config)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    return Transducer(encoder, Decoder(7, 8, 2), Joiner(24, 8, 12, 7)).tensors()


@pytest.mark.parametrize(
    ("dims", "heads", "doubted"),
    [
        ((32, 4, 12), (4, 8), False),  # the recipe's own: nothing to say
        ((32, 8, 12), (4, 8), True),  # taken is what keeps most of the recipe
        ((16, 4, 8), (4, 8), True),
        ((5, 4, 7), (4, 8), True),
        ((5, 2, 7), (1, 1), False),  # one head can only be one
    ],
)
def test_only_what_is_not_plain_is_doubted(
    dims: tuple[int, int, int], heads: tuple[int, ...], doubted: bool, tmp_path: Path
) -> None:
    torch.save({"model": zipformer2(*dims, heads)}, tmp_path / "epoch-1.pt")
    loaded = load_with_facts([tmp_path / "epoch-1.pt"])
    assert loaded.transducer.encoder.config.num_heads == heads
    assert bool(loaded.doubts(streaming=False)) is doubted
    assert sources(loaded)["num_heads"][1] == ("shapes" if heads == (1, 1) else "recipe's default")


def test_shapes_that_no_default_fits_are_refused_with_the_flag(tmp_path: Path) -> None:
    torch.save({"model": zipformer2(5, 6, 7)}, tmp_path / "epoch-1.pt")
    with pytest.raises(BundleError, match=r"1 or 2 or 4 heads may share.*--num-heads or --pos-head-dim"):
        load_with_facts([tmp_path / "epoch-1.pt"])
    for recipe in (Recipe(num_heads=(4, 8)), Recipe(pos_head_dim=(6,))):
        assert load_with_facts([tmp_path / "epoch-1.pt"], recipe=recipe).transducer.encoder.config.num_heads == (4, 8)


@pytest.mark.parametrize("bundle", ["conformer-streaming", "zipformer-streaming"])
def test_whether_it_was_trained_for_streaming(bundle: str, tmp_path: Path) -> None:
    bare = read(tmp_path, bundle)
    assert sources(bare)["causal"] == (False, "recipe's default")
    assert "--causal" in bare.doubts(streaming=False)[0]
    assert bare.doubts(streaming=True) == []
    told = read(tmp_path, bundle, Recipe(causal=True))
    assert sources(told)["causal"] == (True, "flag")
    assert told.doubts(streaming=False) == []
    by_training = {"causal_convolution": True} if bundle.startswith("conformer") else {"decode_chunk_len": 64}
    said = read(tmp_path, bundle, **by_training)
    assert sources(said)["causal"] == (True, "parameters")
    assert said.transducer.encoder.streaming_layout().chunk_frames == 64
    # The options of a recipe without the one for streaming.
    other = read(tmp_path, bundle, nhead="4,4,4" if bundle.startswith("zipformer") else 4)
    assert other.doubts(streaming=False) == []
    assert "do not say that it was trained for streaming" in other.doubts(streaming=True)[0]


def test_a_conformer_that_was_not_trained_for_streaming_does_not_stream(tmp_path: Path) -> None:
    encoder = read(tmp_path, "conformer-streaming", causal_convolution=False).transducer.encoder
    with pytest.raises(ValueError, match="not trained for streaming"):
        encoder.streaming_layout()


def test_chunks_are_those_of_training(tmp_path: Path) -> None:
    def sizes(bundle: str, **parameters: Any) -> tuple[object, object]:
        facts = sources(read(tmp_path, bundle, **parameters))
        return facts["chunk_size"], facts["left_context_frames"]

    default, trained = "recipe's default", "parameters"
    assert sizes("zipformer2-streaming") == ((16, default), (128, default))
    several = {"chunk_size": "16,32,64,-1", "left_context_frames": "64,128,256,-1"}
    assert sizes("zipformer2-streaming", **several) == ((16, trained), (128, trained))
    large = {"chunk_size": "64,32,-1", "left_context_frames": "64,256"}
    assert sizes("zipformer2-streaming", **large) == ((32, trained), (256, trained))
    assert sizes("zipformer2-streaming", chunk_size="-1", left_context_frames=-1)[0] == (16, default)
    assert sizes("zipformer-streaming", decode_chunk_len=64) == ((64, trained), (128, default))
    assert sizes("zipformer-streaming", decode_chunk_len=32, num_left_chunks=2) == ((32, trained), (32, trained))
    assert sizes("conformer-streaming", short_chunk_size=25, num_left_chunks=4) == ((16, default), (64, default))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_heads": "4,2"}, r"num_heads to be one number or 3, one for each stack, got 4,2"),
        ({"num_heads": 3}, r"num_heads says 3 for stack 0, whose tensors have 32 channels for queries"),
        ({"num_heads": "4,2,4", "pos_head_dim": 8}, r"pos_head_dim says 8 and num_heads says 4 for stack 0"),
        ({"num_heads": "4,2,4", "query_head_dim": 32}, r"query_head_dim says 32 and num_heads says 4"),
        ({"num_heads": 0}, "num_heads says 0"),
        ({"pos_head_dim": -4}, "pos_head_dim says -4"),
        ({"num_heads": "four"}, r"Expected num_heads of the checkpoint's parameters to be a number.*got 'four'"),
        ({"num_heads": "4,,4"}, "Expected num_heads"),
        ({"num_heads": 4.5}, r"Expected num_heads.*got 4\.5"),
        ({"num_heads": True}, "Expected num_heads.*got True"),
        ({"num_heads": "9" * 9_999}, "Expected num_heads"),
        ({"causal": True}, "causal says True, and its tensors have no causal convolutions"),
        ({"causal": "perhaps"}, "Expected causal of the checkpoint's parameters to be True or False, got 'perhaps'"),
        ({"encoder_dim": "48,64,48"}, r"say encoder_dim 48,64,48, the shapes of its tensors say 48,64,40"),
        ({"encoder_dim": "48,64"}, r"say encoder_dim 48,64, the shapes"),
        ({"context_size": 1}, r"say context_size 1, the shapes of its tensors say 2"),
        ({"vocab_size": "37,37"}, r"say vocab_size 37,37, the shapes of its tensors say 37"),
        ({"feature_dim": 40}, "expected feature_dim to be 79 to 82, as the shapes of tensors are, got 40"),
        ({"feature_dim": "80,80"}, "Expected feature_dim of the checkpoint's parameters to be one number"),
        ({"subsampling_factor": 6}, "Expected a subsampling_factor of 4"),
    ],
    ids=str,
)
def test_contradictions_and_nonsense_are_named(parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read(tmp_path, "zipformer2-offline", **parameters)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("bundle", "parameters", "message"),
    [
        ("conformer-offline", {"nhead": 8}, "expected 4 heads.*num_heads says 8"),
        ("conformer-offline", {"dim_feedforward": 2048}, "say dim_feedforward 2048, the shapes of its tensors say 96"),
        ("zipformer-offline", {"nhead": "4,4,8"}, "num_heads says 4,4,8, the shapes .* say 4,4,4"),
        ("zipformer-offline", {"nhead": "8"}, "num_heads says 8, the shapes .* say 4,4,4"),
        ("zipformer-offline", {"attention_dims": "64"}, "say attention_dims 64"),
        ("lstm-streaming", {"rnn_hidden_size": 512}, "say rnn_hidden_size 512, the shapes of its tensors say 80"),
        ("lstm-streaming", {"encoder_dim": "48,48"}, "say encoder_dim 48,48"),
    ],
)
def test_other_families(bundle: str, parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        read(tmp_path, bundle, **parameters)


def test_one_number_is_for_every_stack(tmp_path: Path) -> None:
    said = read(tmp_path, "zipformer2-offline", query_head_dim=8, value_head_dim="6", pos_head_dim="4,4,4")
    assert sources(said)["query_head_dim"] == ((8, 8, 8), "parameters")
    assert sources(said)["num_heads"] == ((4, 2, 4), "shapes")


@pytest.mark.parametrize(
    ("bundle", "recipe", "message"),
    [
        ("zipformer2-offline", Recipe(num_heads=(2,)), "--num-heads says 2, the checkpoint's own parameters say 4,2,4"),
        ("zipformer2-offline", Recipe(causal=True), "--causal says True, the checkpoint's own parameters say False"),
        ("zipformer2-offline", Recipe(right_context=2), "--right-context is for a Conformer"),
        ("lstm-streaming", Recipe(chunk_size=4), "--chunk-size does not apply to an LSTM"),
    ],
)
def test_a_flag_that_contradicts_parameters_is_refused(
    bundle: str, recipe: Recipe, message: str, tmp_path: Path
) -> None:
    parameters = {"num_heads": "4,2,4", "causal": False} if bundle.startswith("zipformer2") else {}
    with pytest.raises(OptionsError, match=message):
        read(tmp_path, bundle, recipe, **parameters)


def test_a_flag_may_say_the_same_in_another_form(tmp_path: Path) -> None:
    read(tmp_path, "zipformer2-offline-pos8", Recipe(num_heads=(4,)), num_heads="4,4", pos_head_dim=8)
    read(tmp_path, "zipformer2-streaming", Recipe(chunk_size=32, causal=True), chunk_size="16", causal=True)


def test_every_flag_is_a_field() -> None:
    assert all(hasattr(Recipe(), name) for name in FLAGS)
