from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
from tests.bundles import BUNDLES

from .command import moulin, moulin_here

ALL = [DEMO_MODEL, *sorted(path for path in BUNDLES.iterdir() if path.is_dir())]


@pytest.mark.parametrize("model", ALL, ids=lambda path: path.name)
def test_table_and_json_say_the_same(model: Path) -> None:
    facts = json.loads(moulin_here("inspect", model, "--json").expect(0).out)
    spec = load_bundle(model)
    assert facts["path"] == str(model)
    for name in ("name", "family", "mode", "precision", "vocab_size", "joiner_dim", "context_size", "feature_dim"):
        assert facts[name] == getattr(spec, name)
    assert ("chunk_frames" in facts) == (spec.mode == "streaming")
    assert facts["files"]["encoder"] == spec.files.encoder.name

    done = moulin_here("inspect", model).expect(0)
    assert done.err == ""
    table = dict(line.split("  ", 1) for line in done.out.splitlines())
    assert [name.replace(" ", "_") for name in table] == list(facts)
    assert table["family"].strip() == spec.family
    assert spec.files.encoder.name in table["files"]


def test_a_variant(tmp_path: Path) -> None:
    int8 = json.loads(moulin("inspect", BUNDLES / "zipformer2-offline", "--precision", "int8", "--json").expect(0).out)
    by_file = json.loads(moulin("inspect", BUNDLES / "zipformer2-offline" / int8["files"]["encoder"], "--json").out)
    assert int8 == by_file
    assert int8["precision"] == "int8"
    assert (
        "has no int8 encoder" in moulin("inspect", BUNDLES / "conformer-offline", "--precision", "int8").expect(1).err
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no tokens", "has no tokens.txt\n  hint: copy it"),
        ("no joiner", "has no joiner*.onnx"),
        ("bad tokens", "tokens.txt"),
        ("bad encoder", "encoder-epoch-1-avg-1.onnx"),
        ("empty encoder", "encoder-epoch-1-avg-1.onnx"),
        ("other joiner", "channels"),
        ("empty folder", "holds no transducer"),
        pytest.param("checkpoints", "epoch-1.pt is no checkpoint: it is empty", marks=pytest.mark.needs("torch")),
    ],
)
def test_broken_models(tmp_path: Path, damage: str, message: str) -> None:
    model = shutil.copytree(BUNDLES / "conformer-offline", tmp_path / "model")
    encoder = model / "encoder-epoch-1-avg-1.onnx"
    match damage:
        case "no tokens":
            (model / "tokens.txt").unlink()
        case "no joiner":
            (model / "joiner-epoch-1-avg-1.onnx").unlink()
        case "bad tokens":
            (model / "tokens.txt").write_text("<blk> zero\n")
        case "bad encoder":
            encoder.write_bytes(encoder.read_bytes()[:1000])
        case "empty encoder":
            encoder.write_bytes(b"")
        case "other joiner":
            shutil.copy(DEMO_MODEL / "joiner-epoch-1-avg-1.onnx", model)
        case _:
            for file in model.iterdir():
                file.unlink()
            if damage == "checkpoints":
                (model / "epoch-1.pt").touch()
    done = moulin_here("inspect", model, "--json").expect(1)
    assert done.out == ""
    assert done.err.startswith("moulin: ")
    assert message in done.err
    assert len(done.err.splitlines()) <= 2
