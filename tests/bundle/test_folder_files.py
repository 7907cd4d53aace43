"""Models and vocabularies in folders as clones of published recipes have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.files import choose_on_disk, find_bundle_files
from moulin.errors import BundleError

from .folders import MODEL, touch


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"exp/{name}" for name in MODEL), "data/lang_char/tokens.txt")
    monkeypatch.chdir(tmp_path / "exp")
    files = find_bundle_files(Path())
    assert (files.encoder, files.tokens) == (tmp_path / "exp/encoder.onnx", tmp_path / "data/lang_char/tokens.txt")
    assert find_bundle_files(Path("../exp")) == files


def test_hidden_and_deep_folders_are_no_models(tmp_path: Path) -> None:
    touch(tmp_path, "tokens.txt", *(f".git/{name}" for name in MODEL), *(f"a/b/c/d/e/{name}" for name in MODEL))
    with pytest.raises(BundleError, match="holds no transducer"):
        find_bundle_files(tmp_path)


def test_a_link_to_a_folder_above(tmp_path: Path) -> None:
    touch(tmp_path, *MODEL, "tokens.txt")
    (tmp_path / "again").symlink_to(tmp_path)
    choice = choose_on_disk(tmp_path)
    assert (Path(choice.file), choice.notes) == (tmp_path / "encoder.onnx", ())
