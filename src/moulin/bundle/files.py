"""The files of a model directory that belong together: the rules of `choice` and `vocabulary_files` on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moulin.bundle.choice import NO_WISH, Choice, Wish, choose_model
from moulin.bundle.folder_files import files_around
from moulin.bundle.precision import PRECISIONS as PRECISIONS
from moulin.bundle.precision import Precision as Precision
from moulin.bundle.untrusted_file import errors_of
from moulin.bundle.vocabulary_files import find_vocabulary
from moulin.errors import BundleError, OptionsError
from moulin.quoting import cut, quoted


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """The files of one transducer. `precision` is the encoder's; `tokens` may be `bpe_model` itself."""

    directory: Path
    encoder: Path
    decoder: Path
    joiner: Path
    tokens: Path
    bpe_model: Path | None
    precision: Precision


def choose_on_disk(model: Path, wish: Wish = NO_WISH) -> Choice:
    """The model at `model` on disk: a folder (also a clone with `exp/` and `data/lang_*/`), an encoder file or a
    checkpoint. Raises BundleError, and OptionsError for an unknown precision."""
    if wish.precision is not None and wish.precision not in PRECISIONS:
        raise OptionsError(f"Expected a precision of {', '.join(PRECISIONS)}, got {quoted(wish.precision)}")
    with errors_of(model):
        exists = model.exists()
    if not exists:
        raise BundleError(
            f"There is no model at {cut(str(model), 1000)}", hint="pass a folder with encoder*.onnx and tokens.txt"
        )
    paths, inside = files_around(model)
    about = str(inside if model.is_dir() else inside.parent)
    if model.is_file() and model.suffix not in (".onnx", ".pt", ".safetensors"):
        raise BundleError(f"Expected a model folder or an encoder*.onnx file, got {model}")
    return choose_model(paths, inside, about, wish)


def find_bundle_files(model: Path, precision: Precision | None = None, *, wish: Wish = NO_WISH) -> BundleFiles:
    """Choose the encoder, decoder, joiner and tokens of `model`: a directory, or an encoder file in it.

    Without `precision` the encoder of the highest precision is taken (fp32, then fp16, then int8). The decoder and
    joiner follow the encoder's precision where they exist in it: published bundles often quantise the encoder alone.
    Checkpoints beside the ONNX files are ignored.
    """
    wish = Wish(precision or wish.precision, wish.mode, wish.language, "onnx")
    choice = choose_on_disk(model, wish)
    if choice.form == "checkpoint" or choice.precision is None:
        name = choice.file.name
        raise BundleError(
            f"{model} holds PyTorch checkpoints ({name}) but no ONNX files",
            hint=f"export it first: moulin export {name} --to FOLDER, for live audio with --streaming",
        )
    if choice.head == "ctc":
        raise BundleError(f"Expected a transducer in {model}, got the CTC model {choice.file.name}")
    encoder, decoder, joiner = map(Path, choice.networks)
    tokens, bpe_model = vocabulary_on_disk(encoder, choice.language)
    return BundleFiles(
        directory=encoder.parent,
        encoder=encoder,
        decoder=decoder,
        joiner=joiner,
        tokens=tokens,
        bpe_model=bpe_model,
        precision=choice.precision,
    )


def vocabulary_on_disk(
    model: Path, language: str | None = None, *, named: Path | None = None
) -> tuple[Path, Path | None]:
    """`find_vocabulary` for the encoder or checkpoint file `model`; with `named` that file, or the one in that folder.

    Raises BundleError.
    """
    if named is not None and not named.is_dir():
        if not named.is_file():
            raise BundleError(f"There is no {named}", hint="name the file with --tokens")
        bpe_model = named if named.suffix == ".model" else named.parent / "bpe.model"
        return named, bpe_model if bpe_model.is_file() else None
    paths, inside = files_around(model if named is None else named)
    if named is not None:
        inside /= model.name
    tokens, bpe_model_path = find_vocabulary(paths, inside, str(inside.parent), language)
    return Path(tokens), Path(bpe_model_path) if bpe_model_path else None
