"""Copies of published models without a limit of length."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.cli.any_length import of_any_length
from moulin.cli.models import load_models
from tests.bundles import BUNDLES

OFFLINE = BUNDLES / "zipformer2-offline"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_copy_in_the_cache_made_once(capsys: pytest.CaptureFixture[str]) -> None:
    found = of_any_length(load_bundle(OFFLINE))
    assert found is not None
    assert "zipformer2-offline was exported for 40 s at once; writing it for any length" in capsys.readouterr().err
    spec, before = load_bundle(found), load_bundle(OFFLINE)
    assert (spec.name, spec.max_frames, spec.family) == (before.name, None, before.family)
    assert spec.encoder.metadata == before.encoder.metadata
    written = found.stat().st_mtime_ns
    assert of_any_length(before) == found
    assert found.stat().st_mtime_ns == written
    assert capsys.readouterr().err == ""
    assert of_any_length(spec) is None
    assert [path.name for path in found.parent.parent.iterdir()] == [found.parent.name]


def test_another_model_another_copy(tmp_path: Path) -> None:
    other = tmp_path / OFFLINE.name
    shutil.copytree(OFFLINE, other)
    file = other / "decoder-epoch-1-avg-1.onnx"
    decoder = onnx.load(file)
    decoder.doc_string = "another"
    onnx.save(decoder, file)
    assert of_any_length(load_bundle(other)) != of_any_length(load_bundle(OFFLINE))


@pytest.mark.parametrize("name", ["conformer-offline", "zipformer-offline", "zipformer2-streaming"])
def test_others_stay(name: str, cache: Path) -> None:
    assert of_any_length(load_bundle(BUNDLES / name)) is None
    assert not list(cache.rglob("*.onnx"))


def test_int8_stays() -> None:
    """Rounding turns differences in the last digit into whole steps."""
    assert of_any_length(load_bundle(OFFLINE, precision="int8")) is None


def test_weights_in_another_file_stay(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(OFFLINE, folder)
    encoder = folder / "encoder-epoch-1-avg-1.onnx"
    onnx.save(onnx.load(encoder), encoder, save_as_external_data=True, location="encoder.data", size_threshold=0)
    assert of_any_length(load_bundle(folder)) is None


def test_what_is_served_has_no_limit() -> None:
    (served,) = load_models([OFFLINE])
    assert served.spec.max_frames is None
    assert os.environ["XDG_CACHE_HOME"] in str(served.spec.file)
