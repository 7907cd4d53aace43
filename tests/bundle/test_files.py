from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from moulin.bundle.files import Precision, choose_on_disk, find_bundle_files
from moulin.demo.files import DEMO_MODEL
from moulin.errors import BundleError, OptionsError
from tests.bundles import BUNDLES

ZIPFORMER2 = BUNDLES / "zipformer2-offline"


def folder_of(tmp_path: Path, *names: str) -> Path:
    """A folder of empty files: choosing among them looks at names alone."""
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def chosen(model: Path, precision: Precision | None = None) -> tuple[str, str, str]:
    files = find_bundle_files(model, precision)
    return files.encoder.name, files.decoder.name, files.joiner.name


def test_the_most_exact_precision_is_the_default() -> None:
    assert find_bundle_files(ZIPFORMER2).precision == "fp32"
    assert chosen(ZIPFORMER2) == tuple(f"{role}-epoch-1-avg-1.onnx" for role in ("encoder", "decoder", "joiner"))


def test_int8_is_taken_where_asked_for() -> None:
    assert find_bundle_files(ZIPFORMER2, "int8").precision == "int8"
    assert chosen(ZIPFORMER2, "int8") == tuple(
        f"{role}-epoch-1-avg-1.int8.onnx" for role in ("encoder", "decoder", "joiner")
    )


def test_a_precision_that_is_not_there() -> None:
    with pytest.raises(BundleError, match="zipformer2-offline has no fp16 encoder, only fp32, int8"):
        find_bundle_files(ZIPFORMER2, "fp16")
    with pytest.raises(BundleError, match="has no fp32 encoder, only int8"):
        find_bundle_files(DEMO_MODEL, "fp32")


def test_an_unknown_precision() -> None:
    with pytest.raises(OptionsError, match="Expected a precision of fp32, fp16, bf16, int8, got 'fp64'"):
        find_bundle_files(ZIPFORMER2, "fp64")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["", ".int8"])
def test_an_encoder_file_says_its_precision(suffix: str) -> None:
    encoder = ZIPFORMER2 / f"encoder-epoch-1-avg-1{suffix}.onnx"
    files = find_bundle_files(encoder)
    assert files.encoder == encoder
    assert files.directory == ZIPFORMER2
    assert files.precision == ("int8" if suffix else "fp32")


def test_only_an_encoder_file_names_a_model() -> None:
    for name in ("decoder-epoch-1-avg-1.onnx", "tokens.txt"):
        with pytest.raises(BundleError, match=rf"Expected a model folder or an encoder\*.onnx file, got .*{name}"):
            find_bundle_files(ZIPFORMER2 / name)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_companions_follow_the_encoder_where_they_can(tmp_path: Path, precision: Precision) -> None:
    folder_of(tmp_path, "tokens.txt", "decoder.onnx", "decoder.fp16.onnx", "joiner.onnx", "joiner.int8.onnx")
    folder_of(tmp_path, "encoder.onnx", "encoder.fp16.onnx", "encoder.int8.onnx")
    suffix = "" if precision == "fp32" else f".{precision}"
    assert chosen(tmp_path, precision) == (
        f"encoder{suffix}.onnx",
        "decoder.fp16.onnx" if precision == "fp16" else "decoder.onnx",
        "joiner.int8.onnx" if precision == "int8" else "joiner.onnx",
    )


def test_a_companion_in_another_precision_is_better_than_none(tmp_path: Path) -> None:
    folder_of(tmp_path, "tokens.txt", "encoder.onnx", "decoder.int8.onnx", "joiner.fp16.onnx")
    assert chosen(tmp_path) == ("encoder.onnx", "decoder.int8.onnx", "joiner.fp16.onnx")


TWO_LABELS = [
    f"{role}-epoch-{epoch}-avg-1-chunk-16-left-128.onnx"
    for role in ("encoder", "decoder", "joiner")
    for epoch in (9, 30)
]


def test_of_two_epochs_of_one_training_the_last_is_taken(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "tokens.txt", *TWO_LABELS)
    for epoch in (9, 30):
        label = f"-epoch-{epoch}-avg-1-chunk-16-left-128.onnx"
        assert chosen(folder / f"encoder{label}") == tuple(
            f"{role}{label}" for role in ("encoder", "decoder", "joiner")
        )
    assert chosen(folder) == chosen(folder / "encoder-epoch-30-avg-1-chunk-16-left-128.onnx")
    (note,) = choose_on_disk(folder).notes
    assert note == (
        f"{folder} holds one model in 2 exports; taking encoder-epoch-30-avg-1-chunk-16-left-128.onnx, the last of the "
        "training (others: encoder-epoch-9-avg-1-chunk-16-left-128.onnx; to take one: "
        f"{folder}/encoder-epoch-9-avg-1-chunk-16-left-128.onnx)"
    )


def test_two_models_in_a_folder_need_a_choice(tmp_path: Path) -> None:
    names = [f"{role}-{label}.onnx" for role in ("encoder", "decoder", "joiner") for label in ("big", "small")]
    with pytest.raises(BundleError, match=r"holds 2 models: encoder-big.onnx, encoder-small.onnx") as caught:
        find_bundle_files(folder_of(tmp_path, "tokens.txt", *names))
    assert caught.value.hint == f"name the encoder file instead: {tmp_path}/encoder-big.onnx"


def test_one_decoder_and_joiner_serve_two_encoders(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "tokens.txt", "encoder-chunk-16.onnx", "encoder-chunk-32.onnx", "decoder.onnx")
    folder_of(tmp_path, "joiner-epoch-99.onnx")
    assert chosen(folder / "encoder-chunk-32.onnx") == ("encoder-chunk-32.onnx", "decoder.onnx", "joiner-epoch-99.onnx")


def test_two_strange_decoders_are_ambiguous(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "tokens.txt", "encoder-a.onnx", "decoder-b.onnx", "decoder-c.onnx", "joiner-a.onnx")
    with pytest.raises(BundleError, match=r"None of decoder-b.onnx, decoder-c.onnx has the label '-a'"):
        find_bundle_files(folder)


def test_a_decoder_of_another_epoch_is_not_taken(tmp_path: Path) -> None:
    """As where a newer model was only half copied."""
    names = [f"{role}-epoch-30-avg-4.onnx" for role in ("encoder", "decoder", "joiner")]
    for name in (*names, "encoder-epoch-99-avg-1.onnx", "tokens.txt"):
        (tmp_path / name).touch()
    message = r"None of decoder-epoch-30-avg-4\.onnx has the label '-epoch-99-avg-1' of the encoder"
    for model in (tmp_path, tmp_path / "encoder-epoch-99-avg-1.onnx"):
        with pytest.raises(BundleError, match=message):
            find_bundle_files(model)
    assert find_bundle_files(tmp_path / names[0]).joiner.name == names[2]


def test_other_files_are_ignored(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ZIPFORMER2, tmp_path / "model"))
    folder_of(folder, "ctc-encoder.onnx", "encoder.onnx.part", "my-joiner.onnx", "silero_vad.onnx", "README.md")
    assert chosen(folder)[0] == "encoder-epoch-1-avg-1.onnx"


# ------------------------------------------------------------------------------------------------- what is missing


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"There is no model at {tmp_path}/absent") as caught:
        find_bundle_files(tmp_path / "absent")
    assert caught.value.hint


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path} holds no transducer: expected encoder") as caught:
        find_bundle_files(tmp_path)
    assert "CTC" in str(caught.value.hint)


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
def test_a_missing_part(tmp_path: Path, role: str) -> None:
    folder = folder_of(tmp_path, "tokens.txt", "encoder.onnx", "decoder.onnx", "joiner.onnx")
    (folder / f"{role}.onnx").unlink()
    with pytest.raises(BundleError) as caught:
        find_bundle_files(folder)
    assert caught.value.message == f"{folder} has no {role}*.onnx"


def test_two_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        find_bundle_files(folder_of(tmp_path, "tokens.txt", "encoder.onnx"))
    assert caught.value.message == f"{tmp_path} has no decoder*.onnx and no joiner*.onnx"


def test_missing_tokens(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path} has no tokens.txt") as caught:
        find_bundle_files(folder_of(tmp_path, "encoder.onnx", "decoder.onnx", "joiner.onnx"))
    assert caught.value.hint


def test_only_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"PyTorch checkpoints \(epoch-2.pt\) but no ONNX files") as caught:
        find_bundle_files(folder_of(tmp_path, "tokens.txt", "epoch-1.pt", "epoch-2.pt"))
    assert "moulin export epoch-2.pt" in str(caught.value.hint)
