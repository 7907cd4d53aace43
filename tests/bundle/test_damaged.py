"""Everything that can be wrong with a bundle is one BundleError that names the file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.errors import BundleError
from tests.bundles import BUNDLES

from .conftest import CopyBundle
from .damage import edit_onnx, rename_tensors, set_metadata, use_external_data


def refused(model: Path, named: Path, match: str, *, hint: bool = True) -> None:
    """`model` is refused with one sentence about `named` in which `match` occurs, and a hint if there should be."""
    with pytest.raises(BundleError, match=match) as caught:
        load_bundle(model)
    assert str(named) in caught.value.message
    assert "\n" not in caught.value.message
    assert not caught.value.message.endswith(".")
    assert bool(caught.value.hint) == hint


def part(folder: Path, role: str) -> Path:
    return next(folder.glob(f"{role}*1.onnx"))


# --------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 100, 4096, 0.5, 0.9, 0.99, -1])
def test_truncated(copy_bundle: CopyBundle, role: str, size: float) -> None:
    folder = copy_bundle("conformer-offline")
    file = part(folder, role)
    content = file.read_bytes()
    kept = content[: int(size * len(content))] if isinstance(size, float) else content[:size]
    file.write_bytes(kept)
    refused(folder, file, "not a complete ONNX file|no complete ONNX graph")


def test_truncated_at_every_byte_of_the_end(copy_bundle: CopyBundle) -> None:
    """What comes last is lost first: opset and metadata. A cut between two fields leaves a file that parses."""
    folder = copy_bundle("conformer-offline")
    decoder = part(folder, "decoder")
    content = decoder.read_bytes()
    whole = load_bundle(folder)
    for lost in range(1, 60):
        decoder.write_bytes(content[:-lost])
        try:
            spec = load_bundle(folder)
        except BundleError:
            continue
        # Only metadata can go unnoticed, and the shapes have it too.
        assert (spec.context_size, spec.vocab_size) == (whole.context_size, whole.vocab_size), lost
        onnx.checker.check_model(str(decoder))


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 7425224\n",
        b"<!DOCTYPE html><html><head><title>Not Found</title></head></html>",
        b"Entry not found",
        bytes(4096),
    ],
    ids=["git-lfs", "html", "hub", "zeros"],
)
def test_not_onnx_at_all(copy_bundle: CopyBundle, content: bytes) -> None:
    folder = copy_bundle("zipformer2-offline")
    file = part(folder, "encoder")
    file.write_bytes(content)
    refused(folder, file, "not a complete ONNX file|no complete ONNX graph")


def test_a_folder_in_place_of_a_file(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    file = part(folder, "joiner")
    file.unlink()
    file.mkdir()
    refused(folder, file, "cannot be read", hint=False)


def test_a_tensor_without_type(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    file = part(folder, "encoder")
    edit_onnx(file, lambda model: model.graph.input[0].ClearField("type"))
    refused(folder, file, "Expected 'x' of .* to be a tensor", hint=False)


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


# ---------------------------------------------------------------------------------------------------- external weights


def test_external_weights_missing(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    use_external_data(part(folder, "encoder"), "encoder.weights").unlink()
    refused(folder, part(folder, "encoder"), "'encoder.weights', which is not beside it")


def test_external_weights_truncated(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    weights = use_external_data(part(folder, "encoder"), "encoder.weights")
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(folder, weights, f"Expected at least {size:,} bytes of weights in .*, got {size - 1:,}")


@pytest.mark.parametrize("location", ["../stolen.weights", "/etc/passwd", "sub/../../stolen.weights"])
def test_external_weights_outside_the_folder(copy_bundle: CopyBundle, location: str) -> None:
    folder = copy_bundle("conformer-offline")
    encoder = part(folder, "encoder")
    (folder / "sub").mkdir()
    use_external_data(encoder, "encoder.weights").rename(folder.parent / "stolen.weights")

    def redirect(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location

    model = onnx.load(encoder, load_external_data=False)
    redirect(model)
    encoder.write_bytes(model.SerializeToString())
    refused(folder, encoder, "points outside its own folder", hint=False)


@pytest.mark.parametrize("key", ["offset", "length"])
def test_external_weights_at_nonsense(copy_bundle: CopyBundle, key: str) -> None:
    folder = copy_bundle("conformer-offline")
    encoder = part(folder, "encoder")
    use_external_data(encoder, "encoder.weights")
    model = onnx.load(encoder, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    next(entry for entry in entries if entry.key == key).value = "many"
    encoder.write_bytes(model.SerializeToString())
    refused(folder, encoder, f"Expected a number as '{key}'", hint=False)


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
