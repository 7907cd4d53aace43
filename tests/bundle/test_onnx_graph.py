"""Damaged ONNX files and external weights."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.errors import BundleError

from .conftest import CopyBundle
from .damage import edit_onnx, part, refused, use_external_data


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
