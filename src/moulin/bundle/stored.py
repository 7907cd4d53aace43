"""moulin's own stored form of a model: one safetensors file, with the recipe's options in its metadata.

Tensors have Icefall's names. Averages are already taken, factors of scaled parameters multiplied in, and tensors that
only training needs left out; the file is memory-mapped and cannot hold code.
"""

from __future__ import annotations

import json
from pathlib import Path

from moulin.bundle.checkpoint import Checkpoint
from moulin.bundle.parameters import as_parameters
from moulin.bundle.untrusted_file import errors_of, expect_regular
from moulin.encoders.acoustic_model import AcousticModel
from moulin.errors import BundleError
from moulin.quoting import cut
from moulin.untrusted_json import JsonError, read_json

SUFFIX = ".safetensors"
_FORMAT, _VERSION = "moulin-transducer", "1"
_MOST_JSON_BYTES = 1 << 20


def write_stored(model: AcousticModel, file: Path) -> None:
    """Write `model` and its recipe (`Encoder.recipe`) into `file`."""
    from safetensors.torch import save_file

    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "family": model.encoder.family,
        "parameters": json.dumps(as_parameters(model.encoder.recipe)),
    }
    save_file({name: tensor.contiguous() for name, tensor in model.tensors().items()}, file, metadata)


def read_stored(file: Path) -> Checkpoint:
    """The tensors and recipe options in `file`. Raises BundleError."""
    from safetensors import SafetensorError, safe_open

    expect_regular(file)
    try:
        with errors_of(file), safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise BundleError(f"{file} cannot be read: {error}") from error
    if (metadata.get("format"), metadata.get("version")) != (_FORMAT, _VERSION):
        raise BundleError(
            f"Expected {file} to be a {_FORMAT} of version {_VERSION}, got "
            f"{cut(metadata.get('format', 'no format'))} {cut(metadata.get('version', ''))}".rstrip(),
            hint="moulin export --safetensors writes it from a checkpoint",
        )
    return Checkpoint(tensors, _parameters(metadata, file))


def _parameters(metadata: dict[str, str], file: Path) -> dict[str, object]:
    if "parameters" not in metadata:  # files of earlier versions have only `causal`
        return {"causal": True} if metadata.get("causal") == "true" else {}
    try:
        parameters = read_json(metadata["parameters"], most_bytes=_MOST_JSON_BYTES)
    except JsonError as error:
        raise BundleError(f"Expected 'parameters' of {file} to be JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise BundleError(f"Expected 'parameters' of {file} to be a JSON object, got a {type(parameters).__name__}")
    return parameters
