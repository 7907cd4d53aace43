"""The choice among the files of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.files import choose_on_disk, find_bundle_files
from moulin.errors import BundleError

from .folders import MODEL, touch


def test_several_models_below_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(tmp_path / name, *MODEL, "tokens.txt")
    with pytest.raises(BundleError, match=f"{tmp_path} holds 2 models: a, b") as caught:
        find_bundle_files(tmp_path)
    assert caught.value.hint == f"name one: {tmp_path}/a"


def test_what_is_no_model(tmp_path: Path) -> None:
    touch(tmp_path, "tokens.txt")
    with pytest.raises(BundleError, match=r"Expected a model folder or an encoder\*.onnx file, got .*tokens.txt"):
        choose_on_disk(tmp_path / "tokens.txt")
    touch(tmp_path, "jit_script.pt", "cpu_jit.pt")
    with pytest.raises(BundleError, match=r"holds no transducer.*TorchScript"):
        choose_on_disk(tmp_path)
