"""The checkpoint that a folder stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.checkpoint_files import find_checkpoint, is_checkpoint
from moulin.errors import BundleError


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["epoch-9.pt", "epoch-30.pt"], "epoch-30.pt"),
        (["epoch-2.pt", "checkpoint-48000.pt"], "epoch-2.pt"),
        (["checkpoint-8000.pt", "checkpoint-12000.pt"], "checkpoint-12000.pt"),
        (["pretrained.pt", "epoch-30.pt"], "pretrained.pt"),
        (["anything.pt"], "anything.pt"),
    ],
)
def test_the_checkpoint_of_a_folder(tmp_path: Path, names: list[str], chosen: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path).name == chosen
    assert is_checkpoint(tmp_path)
    (tmp_path / "encoder-epoch-1-avg-1.onnx").touch()
    assert not is_checkpoint(tmp_path)


def test_a_folder_without_a_clear_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found none"):
        find_checkpoint(tmp_path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    with pytest.raises(BundleError, match=r"found a\.pt, b\.pt"):
        find_checkpoint(tmp_path)
    with pytest.raises(BundleError, match="There is no checkpoint at"):
        find_checkpoint(tmp_path / "c.pt")
