"""Which files of a model directory belong together.

Icefall names them `encoder-epoch-99-avg-1.onnx`, `decoder-…`, `joiner-…`, with `.int8.onnx` and `.fp16.onnx` as
variants and, for streaming models, `-chunk-16-left-128` in the label. One directory may hold several labels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from moulin.errors import BundleError, OptionsError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_OR_TENSORRT = " and --engine tensorrt, which takes fp32 files"
_ROLES = ("encoder", "decoder", "joiner")
_ONNX_NAME = re.compile(r"(?P<role>encoder|decoder|joiner)(?P<label>.*?)(?:\.(?P<precision>int8|fp16))?\.onnx")


@dataclass(frozen=True, slots=True)
class BundleFiles:
    """The files that make one transducer. `precision` is the encoder's."""

    directory: Path
    encoder: Path
    decoder: Path
    joiner: Path
    tokens: Path
    bpe_model: Path | None
    precision: Precision


def find_bundle_files(model: Path, precision: Precision | None = None) -> BundleFiles:
    """Choose the encoder, decoder, joiner and tokens of `model`: a directory, or an encoder file in it.

    Without `precision` the most exact encoder that is there is taken (fp32, then fp16, then int8). The decoder
    and joiner follow the encoder's precision where they have it: published bundles often quantise the encoder
    alone.
    """
    if precision is not None and precision not in PRECISIONS:
        raise OptionsError(f"Expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
    if not model.exists():
        raise BundleError(f"There is no model at {model}", hint="pass a folder with encoder*.onnx and tokens.txt")
    directory, wanted_label = (model, None) if model.is_dir() else (model.parent, _label_of(model))
    if model.is_file() and precision is None:
        precision = _match(model)[1]

    files = _onnx_files(directory)
    label = _choose_label(directory, files["encoder"], wanted_label)
    encoders = files["encoder"][label]
    chosen = precision or next(p for p in PRECISIONS if p in encoders)
    if chosen not in encoders:
        raise BundleError(
            f"{directory} has no {chosen} encoder, only {', '.join(p for p in PRECISIONS if p in encoders)}",
            hint=f"leave out --precision{_OR_TENSORRT if chosen == 'fp32' else ''}, or name another model",
        )
    tokens = directory / "tokens.txt"
    if not tokens.is_file():
        raise BundleError(
            f"{directory} has no tokens.txt",
            hint="copy it from the language folder the model was trained with",
        )
    bpe_model = directory / "bpe.model"
    return BundleFiles(
        directory=directory,
        encoder=encoders[chosen],
        decoder=_companion(files["decoder"], label, chosen),
        joiner=_companion(files["joiner"], label, chosen),
        tokens=tokens,
        bpe_model=bpe_model if bpe_model.is_file() else None,
        precision=chosen,
    )


_ByLabel = dict[str, dict[Precision, Path]]


def _onnx_files(directory: Path) -> dict[str, _ByLabel]:
    found: dict[str, _ByLabel] = {role: defaultdict(dict) for role in _ROLES}
    for file in sorted(directory.iterdir()):
        if match := _ONNX_NAME.fullmatch(file.name):
            found[match["role"]][match["label"]][_precision(match["precision"])] = file
    missing = [role for role in _ROLES if not found[role]]
    if not missing:
        return found
    if len(missing) == len(_ROLES):
        checkpoints = sorted(file.name for file in directory.glob("*.pt"))
        if checkpoints:
            raise BundleError(
                f"{directory} holds PyTorch checkpoints ({checkpoints[0]}) but no ONNX files",
                hint=f"export it first: moulin export {checkpoints[0]} --to FOLDER, for live audio with --streaming",
            )
        raise BundleError(
            f"{directory} holds no transducer: expected encoder*.onnx, decoder*.onnx and joiner*.onnx",
            hint="a CTC or attention model is another kind of model, which moulin does not serve",
        )
    raise BundleError(f"{directory} has no {' and no '.join(f'{role}*.onnx' for role in missing)}")


def _choose_label(directory: Path, encoders: _ByLabel, wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    if len(encoders) == 1:
        return next(iter(encoders))
    choices = ", ".join(next(iter(variants.values())).name for variants in encoders.values())
    raise BundleError(
        f"{directory} holds {len(encoders)} models: {choices}",
        hint="pass the encoder file instead of the folder",
    )


def _companion(by_label: _ByLabel, label: str, precision: Precision) -> Path:
    """The decoder or joiner of the encoder `label`; an export may share one among several encoders."""
    if label not in by_label:
        if len(by_label) > 1:
            names = ", ".join(next(iter(variants.values())).name for variants in by_label.values())
            raise BundleError(f"None of {names} has the label '{label}' of the encoder")
        label = next(iter(by_label))
    variants = by_label[label]
    return variants.get(precision) or next(variants[p] for p in PRECISIONS if p in variants)


def _label_of(encoder: Path) -> str:
    return _match(encoder)[0]


def _match(encoder: Path) -> tuple[str, Precision]:
    match = _ONNX_NAME.fullmatch(encoder.name)
    if match is None or match["role"] != "encoder":
        raise BundleError(f"Expected a model folder or an encoder*.onnx file, got {encoder}")
    return match["label"], _precision(match["precision"])


def _precision(suffix: str | None) -> Precision:
    if suffix == "int8":
        return "int8"
    return "fp16" if suffix == "fp16" else "fp32"
