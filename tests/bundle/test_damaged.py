"""Everything that can be wrong with a bundle is one BundleError that names the file."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from moulin.bundle.load import load_bundle
from moulin.errors import BundleError
from tests.bundles import BUNDLES

from .conftest import CopyBundle
from .damage import edit_onnx, part, refused, rename_tensors, set_metadata

# --------------------------------------------------------------------------------------------------- damaged graphs


def test_too_few_inputs(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    file = part(folder, "joiner")
    edit_onnx(file, lambda model: model.graph.input.pop())
    refused(folder, file, "to have an input 'decoder_out', got encoder_out", hint=False)


# ------------------------------------------------------------------------- parts that do not belong together


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
def test_a_part_of_another_model(copy_bundle: CopyBundle, role: str) -> None:
    """Each part in turn comes from the demo model, which has 128 joiner channels where these have 56."""
    from moulin.demo.files import DEMO_MODEL

    folder = copy_bundle("zipformer2-offline")
    file = part(folder, role)
    shutil.copy(next(DEMO_MODEL.glob(f"{role}*.onnx")), file)
    with pytest.raises(BundleError, match=r"to have (56|128) channels \(joiner_dim of the joiner\), got") as caught:
        load_bundle(folder)
    assert str(folder) in caught.value.message
    assert "same export" in str(caught.value.hint)


def test_another_vocabulary(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    set_metadata(part(folder, "decoder"), vocab_size="500")
    refused(folder, part(folder, "joiner"), r"to have 500 channels \(vocab_size of the decoder\), got 37")


@pytest.mark.parametrize(("value", "match"), [("two", "Expected a number as 'context_size'"), ("0", "to be positive")])
def test_metadata_that_makes_no_sense(copy_bundle: CopyBundle, value: str, match: str) -> None:
    folder = copy_bundle("zipformer2-offline")
    set_metadata(part(folder, "decoder"), context_size=value)
    refused(folder, part(folder, "decoder"), match, hint=False)


def test_neither_metadata_nor_shapes(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    decoder = part(folder, "decoder")
    set_metadata(decoder, context_size=None)

    def forget(model: Any) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "C"

    edit_onnx(decoder, forget)
    refused(folder, decoder, "has no 'context_size' in its metadata, and its shapes do not contain it")


@pytest.mark.parametrize("name", ["conformer-streaming", "lstm-streaming", "zipformer-streaming"])
def test_a_streaming_encoder_without_metadata(copy_bundle: CopyBundle, name: str) -> None:
    folder = copy_bundle(name)
    encoder = part(folder, "encoder")
    edit_onnx(encoder, lambda model: model.ClearField("metadata_props"))
    refused(folder, encoder, "Expected model_type conformer, .* in the metadata of the streaming encoder .*'unknown'")


@pytest.mark.parametrize("value", [None, "0", "-4"])
def test_a_streaming_encoder_without_chunk_length(copy_bundle: CopyBundle, value: str | None) -> None:
    folder = copy_bundle("lstm-streaming")
    encoder = part(folder, "encoder")
    set_metadata(encoder, decode_chunk_len=value)
    refused(folder, encoder, "decode_chunk_len")


def test_a_state_that_the_family_does_not_have(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    encoder = part(folder, "encoder")
    rename_tensors(encoder, {"state1": "mystery_1"})
    refused(folder, encoder, r"has a state 'mystery_1' \[2, 'N', 80\] that no lstm has", hint=False)


# ------------------------------------------------------------------------------------------------ other kinds of model


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"feature": "whisper"}, "Whisper's log-mel features"),
        ({"normalize_samples": "0"}, "16-bit integers"),
        ({"model_type": "zipformer2_ctc"}, "is a CTC model"),
    ],
)
def test_other_conventions(copy_bundle: CopyBundle, metadata: dict[str, str], match: str) -> None:
    folder = copy_bundle("zipformer2-offline")
    encoder = part(folder, "encoder")
    set_metadata(encoder, **metadata)
    refused(folder, encoder, match)


def test_icefalls_own_convention_may_be_stated(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    set_metadata(part(folder, "encoder"), normalize_samples="1", feature="fbank")
    load_bundle(folder)


def test_a_ctc_model(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    rename_tensors(part(folder, "encoder"), {"encoder_out": "log_probs", "encoder_out_lens": "log_probs_len"})
    refused(folder, part(folder, "encoder"), "is a CTC model")


def test_a_nemo_model(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    rename_tensors(part(folder, "encoder"), {"x": "audio_signal", "x_lens": "length", "encoder_out": "outputs"})
    refused(folder, part(folder, "encoder"), "is a NeMo export")


def test_a_fixed_length_export(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    encoder = part(folder, "encoder")

    def fix_length(model: Any) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1600

    edit_onnx(encoder, fix_length)
    refused(folder, encoder, "takes exactly 1600 frames and no states")


def test_x_without_feature_dimension(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    encoder = part(folder, "encoder")

    def forget(model: Any) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "C"

    edit_onnx(encoder, forget)
    refused(folder, encoder, r"to be \[N, T, feature_dim\], got \['N', 'T', 'C'\]", hint=False)


# ------------------------------------------------------------------------------------------------------------ tokens


def test_tokens_of_another_model(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    tokens = folder / "tokens.txt"
    lines = tokens.read_text().splitlines()
    tokens.write_text("\n".join(lines[:-1]) + "\n")
    refused(folder, tokens, r"Expected 37 tokens .*, got 36 \(token 36 is missing\)")
    tokens.write_text("\n".join([*lines, "extra 37"]) + "\n")
    refused(folder, tokens, r"Expected 37 tokens .*, got 38 \(token 37 is beyond the model\)")


def test_every_bundle_has_its_own_folder_untouched() -> None:
    """The tests above damage copies."""
    for folder in BUNDLES.iterdir():
        load_bundle(folder)
