"""Zip archives of torch.save, and other archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from .files import read, refused


def test_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(5)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read(tmp_path / "a.pt")["a"].tolist() == [0, 1, 2, 3, 4]


def test_other_zip_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a.npy", b"1")
    refused(tmp_path / "a.pt", "but not PyTorch's: expected one NAME/data.pkl, got a.npy")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for name in ("a/data.pkl", "b/data.pkl"):
            archive.writestr(name, b"}.")
    refused(tmp_path / "b.pt", "but not PyTorch's")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for content in (b"}.", b"]."):
            archive.writestr("a/data.pkl", content)
    refused(tmp_path / "a.pt", "two records of one name", hint=False)


def test_compressed_records(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"}.")
    refused(tmp_path / "a.pt", "has a compressed or encrypted record")
