"""Damaged models: a model, or one BundleError of one short line."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import onnx
import pytest
import torch

from moulin.bundle.checkpoint import average_checkpoints, read_checkpoint
from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.bundle.sentencepiece_model import read_pieces
from moulin.bundle.stored import read_stored, write_stored
from moulin.bundle.tokens import read_tokens
from moulin.bundle.transducer import load_transducer
from moulin.errors import BundleError
from tests.bundle.sentence_pieces import trained
from tests.bundles import BUNDLES, TRAINING

from .conftest import Seeds
from .mutations import mutate_message, mutated
from .outcomes import outcome

LIVE = BUNDLES / "lstm-streaming"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LIVE, tmp_path / "model"))


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
def test_bytes_of_onnx(folder: Path, role: str, seeds: Seeds, survived: dict[str, int]) -> None:
    file = next(folder.glob(f"{role}*.onnx"))
    original = file.read_bytes()
    for seed in seeds(1):
        file.write_bytes(mutated(original, seed))
        outcome(lambda: load_bundle(folder), seed, survived, error=BundleError)


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
def test_fields_of_onnx(folder: Path, role: str, seeds: Seeds, survived: dict[str, int]) -> None:
    file = next(folder.glob(f"{role}*.onnx"))
    original = onnx.load(file)
    for seed in seeds(1):
        model = onnx.ModelProto()
        model.CopyFrom(original)
        mutate_message(model, seed)
        try:
            file.write_bytes(model.SerializeToString())
        except (UnicodeError, ValueError):  # what protobuf itself does not write
            continue
        outcome(lambda: load_bundle(folder), seed, survived, error=BundleError)
        outcome(lambda: read_onnx_graph(file), seed, survived, error=BundleError)


def test_tokens(tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    file = tmp_path / "tokens.txt"
    original = (LIVE / "tokens.txt").read_bytes()
    size = original.count(b"\n")
    for seed in seeds(4):
        file.write_bytes(mutated(original, seed))
        outcome(lambda: read_tokens(file, size), seed, survived, error=BundleError)


def test_pieces(tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    file = tmp_path / "bpe.model"
    original = trained(30)
    for seed in seeds(4):
        file.write_bytes(mutated(original, seed))
        outcome(lambda: read_pieces(file), seed, survived, error=BundleError)


def small_checkpoint(*, zipped: bool) -> bytes:
    weights = {"encoder.w": torch.ones(3, 4), "decoder.w": torch.ones(2, 2).half(), "joiner.n": torch.ones(1)}
    content = {"model": weights, "model_avg": weights, "batch_idx_train": 7, "encoder_dim": "4,4", "causal": True}
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_bytes_of_checkpoints(tmp_path: Path, seeds: Seeds, survived: dict[str, int], *, zipped: bool) -> None:
    file, original = tmp_path / "epoch-1.pt", small_checkpoint(zipped=zipped)
    for seed in seeds(4):
        file.write_bytes(mutated(original, seed))
        outcome(lambda: read_checkpoint(file), seed, survived, error=BundleError)
        outcome(lambda: average_checkpoints([file, file]), seed, survived, error=BundleError)


def test_pickles_of_checkpoints(tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    """In an archive that is whole, so that the damage reaches the unpickler."""
    file = tmp_path / "epoch-1.pt"
    with zipfile.ZipFile(io.BytesIO(small_checkpoint(zipped=True))) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in records if name.endswith("data.pkl"))
    for seed in seeds(6):
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in records.items():
                archive.writestr(name, mutated(content, seed) if name == pickled else content)
        outcome(lambda: read_checkpoint(file), seed, survived, error=BundleError)


def test_whole_checkpoints(tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    """Tensors of a real model, of which one has another shape, type or name."""
    source = sorted(TRAINING.rglob("*.pt"))[-1]
    read = read_checkpoint(source)
    (tmp_path / "tokens.txt").write_text("a 0\n")
    file = tmp_path / "epoch-1.pt"
    odd = (
        torch.ones(1).expand(4, 4),
        torch.empty(0),
        torch.ones(2, 3, 4, 5),
        torch.tensor(1.0),
        torch.ones(3).long(),
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(1, 1),
    )
    names = sorted(read.tensors)
    for seed in seeds(0.5):
        tensors = dict(read.tensors)
        name = names[(seed * 7919) % len(names)]
        tensors[name] = odd[seed % len(odd)]
        if seed % 3 == 0:
            del tensors[names[(seed * 104_729) % len(names)]]
        torch.save({"model": tensors, **read.parameters}, file)
        outcome(lambda: load_model(file), seed, survived, error=BundleError)


def test_stored_form(tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    file = tmp_path / "model.safetensors"
    write_stored(load_transducer([sorted(TRAINING.rglob("*.pt"))[-1]]), file)
    original = file.read_bytes()
    for seed in seeds(1):
        file.write_bytes(mutated(original[: 1 << 16], seed) + original[1 << 16 :])
        outcome(lambda: read_stored(file), seed, survived, error=BundleError)
