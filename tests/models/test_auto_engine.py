"""The engine that `--engine auto` means: measured and kept, or by the table."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import OptionsError
from moulin.models import auto_engine
from moulin.models.auto_engine import WORTH, best_of, fastest, ways
from moulin.models.engine_choice import EngineChoice
from moulin.models.kept_way import Way, keep, kept_way
from moulin.models.load_for_engine import load_for_engine
from moulin.models.precisions import settled
from moulin.processor import Processor
from tests.bundles import BUNDLES

OLD = Processor("old", frozenset({"avx2"}))
NEW = Processor("new", frozenset({"avx2", "avx512f", "avx512_bf16"}))
AMX = Processor("tiles", NEW.flags | {"amx_bf16", "amx_int8"})
LARGE = 250_000_000
ORT, ORT8 = Way("onnxruntime", "fp32"), Way("onnxruntime", "int8")
EXACT, BRAIN, BRAIN8 = (Way("openvino", precision) for precision in ("fp32", "bf16", "int8"))
MODEL = BUNDLES / "zipformer2-offline"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnnxModelSpec:
    """A model of which nothing is kept yet, where OpenVINO is installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(auto_engine, "find_spec", lambda _name: object())
    monkeypatch.setattr(OnnxGraph, "size_bytes", LARGE)
    return load_bundle(MODEL)


def test_ways(spec: OnnxModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = load_bundle(MODEL, precision="int8")
    assert ways(spec, OLD) == [ORT, EXACT]
    assert ways(spec, NEW) == [ORT, EXACT, BRAIN]
    assert ways(coarse, OLD) == [ORT8]
    assert ways(coarse, NEW) == [ORT8, BRAIN8]
    monkeypatch.setattr(auto_engine, "find_spec", lambda _name: None)
    assert ways(spec, NEW) == [ORT]
    assert fastest(spec, processor=NEW) == (ORT, "by the table")


def test_by_the_table(spec: OnnxModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest(spec, processor=OLD)[0] == ORT
    assert fastest(spec, processor=NEW)[0] == BRAIN
    assert fastest(spec, "fp32", NEW)[0] == ORT
    assert fastest(load_bundle(MODEL, precision="int8"), processor=AMX)[0] == ORT8
    monkeypatch.setattr(OnnxGraph, "size_bytes", LARGE // 10)
    assert fastest(spec, processor=NEW)[0] == ORT
    assert fastest(spec, "bf16", NEW)[0] == BRAIN
    for row in auto_engine.TABLE:
        assert row.way.engine != "onnxruntime"
        assert row.mode in ("offline", "streaming")


def test_what_is_kept_comes_first(spec: OnnxModelSpec, tmp_path: Path) -> None:
    """By what is in the file and by the processor; where the model lies does not matter."""
    keep(spec, EXACT, {"cpu_ms": {}}, NEW)
    moved = tmp_path / "elsewhere"
    shutil.copytree(MODEL, moved)
    assert fastest(load_bundle(moved), processor=NEW) == (EXACT, "measured on this machine")
    assert fastest(spec, "bf16", NEW) == (BRAIN, "by the table")  # asked for
    assert kept_way(spec, OLD) is None
    with spec.encoder.file.open("rb") as content, (moved / spec.encoder.file.name).open("wb") as other:
        other.write(content.read() + b"\x0a\x00")  # another graph, as far as a hash knows
    assert kept_way(replace(spec, encoder=replace(spec.encoder, file=moved / spec.encoder.file.name)), NEW) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"engine": "abacus", "precision": "fp32"}', "\xff"])
def test_what_is_kept_may_be_anything(spec: OnnxModelSpec, content: str) -> None:
    file = keep(spec, EXACT, {}, NEW)
    file.write_bytes(content.encode("latin-1"))
    assert kept_way(spec, NEW) is None
    assert fastest(spec, processor=NEW)[0] == BRAIN


def test_another_engine_must_be_worth_it() -> None:
    assert best_of({ORT: 100.0, EXACT: 100.0 / WORTH - 0.1, BRAIN: 95.0}) == EXACT
    assert best_of({ORT: 100.0, EXACT: 100.0 / WORTH + 0.1}) == ORT
    assert best_of({ORT8: 1.0}) == ORT8


def test_settled(spec: OnnxModelSpec, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_engine, "this_processor", lambda: NEW)
    auto = EngineChoice("auto", threads=1)
    with caplog.at_level(logging.INFO):
        _, chosen = load_for_engine(MODEL, auto, "offline")
    assert (chosen.kind, chosen.precision, chosen.threads) == ("openvino", "bf16", 1)
    assert caplog.messages == [
        f"zipformer2-offline runs on openvino in bf16, by the table: {NEW}"  # which processor, for whoever compares
    ]
    assert settled(spec, replace(auto, precision="fp32"))[1].kind == "onnxruntime"
    assert load_for_engine(MODEL, replace(auto, precision="int8"), "offline")[1].kind == "onnxruntime"
    keep(load_bundle(MODEL, precision="int8"), BRAIN8, {}, AMX)
    monkeypatch.setattr(auto_engine, "this_processor", lambda: AMX)
    coarse, chosen = load_for_engine(MODEL, replace(auto, precision="int8"), "offline")
    assert (coarse.precision, chosen.kind, chosen.precision) == ("int8", "openvino", "int8")
    assert chosen.file_precision == "int8"
    monkeypatch.setattr(auto_engine, "this_processor", lambda: OLD)
    assert settled(spec, auto)[1].kind == "onnxruntime"
    with pytest.raises(OptionsError, match="not in bf16"):
        load_for_engine(MODEL, replace(auto, precision="bf16"), "offline")


@pytest.mark.needs("torch")
def test_elsewhere_it_is_the_usual_engine() -> None:
    checkpoint = load_model(BUNDLES / "conformer-offline" / "epoch-1.pt")
    assert settled(checkpoint, EngineChoice("auto"))[1].kind == "torch"
    files = load_bundle(MODEL, precision="int8")
    assert settled(files, EngineChoice("auto", device="cuda"))[1].kind == "onnxruntime"
