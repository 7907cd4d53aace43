"""Hostile models and addresses on the command line: one line and a hint, never a traceback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.bundle.damage import edit_onnx, part, set_metadata
from tests.bundles import BUNDLES

from .command import Finished, moulin_here


def said(done: Finished) -> str:
    assert done.status in (1, 2), (done.status, done.out, done.err)
    assert "Traceback" not in done.err
    assert len(done.err) < 3000
    return done.err


def elem_type(folder: Path) -> None:
    def change(model: Any) -> None:
        model.graph.input[0].type.tensor_type.elem_type = 99

    edit_onnx(part(folder, "encoder"), change)


def long_location(folder: Path) -> None:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="x" * 5000)

    edit_onnx(part(folder, "encoder"), change)


def long_family(folder: Path) -> None:
    set_metadata(part(folder, "encoder"), model_type="x\n" * 1_000_000)


def tokens(content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "tokens.txt").write_bytes(content)

    return damage


def pipe(folder: Path) -> None:
    (folder / "tokens.txt").unlink()
    os.mkfifo(folder / "tokens.txt")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "elem_type": elem_type,
    "location": long_location,
    "family": long_family,
    "tokens": tokens(b"x 0\n" * 1_000_000),
    "line": tokens(b"x" * 10_000_000),
    "pipe": pipe,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("verb", ["inspect", "transcribe"])
def test_models(tmp_path: Path, damage: str, verb: str) -> None:
    folder = Path(shutil.copytree(BUNDLES / "lstm-streaming", tmp_path / "model"))
    DAMAGE[damage](folder)
    arguments = [folder] if verb == "inspect" else [tmp_path / "no.wav", "--model", folder]
    assert said(moulin_here(verb, *arguments)).startswith("moulin: ")


@pytest.mark.parametrize("content", [b"((((.", b"\x80\x02}q\0.", b"PK\3\4((((.", b"", b"\0" * 1000])
def test_checkpoints(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "epoch-1.pt").write_bytes(content)
    (tmp_path / "tokens.txt").write_text("a 0\n")
    assert said(moulin_here("inspect", tmp_path / "epoch-1.pt")).startswith("moulin: ")


@pytest.mark.parametrize(
    "address", ["é", "hf://é/x", "hf://a/b/" + "x/" * 1500, "/".join("x" * 1500), "http://[::1/x.tar.gz", "x" * 5000]
)
@pytest.mark.parametrize("verb", ["fetch", "inspect"])
def test_addresses(address: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert said(moulin_here(verb, address)).startswith("moulin: ")
