"""The vocabulary of a model in folders as clones of published recipes have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.files import find_bundle_files, vocabulary_on_disk
from moulin.bundle.folder_files import files_around
from moulin.errors import BundleError

from .folders import MODEL, touch


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("", "tokens.txt"),
        ("exp", "exp/tokens.txt"),
        ("exp", "tokens.txt"),
        ("exp", "data/tokens.txt"),
        ("exp", "data/lang_char/tokens.txt"),
        ("exp", "lang/tokens.txt"),
        ("exp", "lang_bpe_500/bpe.model"),
        ("exp/onnx", "data/lang_bpe_500/tokens.txt"),
        ("am-onnx", "lang/tokens.txt"),
    ],
)
@pytest.mark.parametrize("named", ["clone", "folder", "file"])
def test_places_of_a_vocabulary(model: str, vocabulary: str, named: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    touch(clone / model, *MODEL)
    touch(clone, vocabulary)
    path = {"clone": clone, "folder": clone / model, "file": clone / model / "encoder.onnx"}[named]
    files = find_bundle_files(path)
    assert (files.directory, files.tokens) == (clone / model, clone / vocabulary)


def test_a_vocabulary_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    """One folder up is near enough; a neighbour's, or one two folders up, is not this model's."""
    touch(tmp_path / "a" / "model", *MODEL)
    touch(tmp_path, "tokens.txt", "a/other/tokens.txt")
    with pytest.raises(BundleError, match=r"model has no tokens\.txt"):
        find_bundle_files(tmp_path / "a" / "model")


def test_two_that_could_be_meant(tmp_path: Path) -> None:
    touch(tmp_path, *(f"exp/{name}" for name in MODEL))
    touch(tmp_path, "data/lang_bpe_500/tokens.txt", "data/lang_bpe_5000/tokens.txt")
    with pytest.raises(BundleError, match=r"has 2 vocabularies: .*lang_bpe_500/tokens.txt, .*lang_bpe_5000/tokens"):
        find_bundle_files(tmp_path)
    touch(tmp_path, "exp/tokens.txt")
    assert find_bundle_files(tmp_path).tokens == tmp_path / "exp" / "tokens.txt"


def test_the_vocabulary_of_a_checkpoint(tmp_path: Path) -> None:
    touch(tmp_path, "exp/epoch-3.pt", "data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model")
    language = tmp_path / "data" / "lang_bpe_500"
    assert vocabulary_on_disk(tmp_path / "exp" / "epoch-3.pt") == (language / "tokens.txt", language / "bpe.model")
    paths, inside = files_around(tmp_path / "exp" / "epoch-3.pt")
    assert inside in paths
