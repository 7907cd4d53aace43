from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.also_there import ITS_PATH, also_there
from moulin.bundle.files import choose_on_disk


def folder_of(folder: Path, *names: str) -> Path:
    for name in (*names, "tokens.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def beside(model: Path) -> dict[str, str]:
    return also_there(model, [Path(choose_on_disk(model).file)])


def three(label: str) -> list[str]:
    return [f"{role}{label}.onnx" for role in ("encoder", "decoder", "joiner")]


def test_nothing_but_the_model(tmp_path: Path) -> None:
    assert beside(folder_of(tmp_path, *three("-epoch-1-avg-1"), "bpe.model")) == {}


def test_precisions_heads_and_checkpoints(tmp_path: Path) -> None:
    names = ["encoder-epoch-9-avg-2.int8.onnx", "joiner-epoch-9-avg-2.int8.onnx", "ctc-epoch-9-avg-2.onnx"]
    model = folder_of(tmp_path, *three("-epoch-9-avg-2"), *names, "epoch-9.pt", "epoch-10.pt", "cpu_jit.pt", "HLG.pt")
    assert list(beside(model).items()) == [
        ("encoder-epoch-9-avg-2.int8.onnx", "--precision int8"),
        ("ctc-epoch-9-avg-2.onnx", "--head ctc"),
        ("epoch-10.pt", "--engine torch"),
        ("epoch-9.pt", "--epoch 9"),
    ]


def test_of_what_is_named_by_its_file(tmp_path: Path) -> None:
    model = folder_of(tmp_path, *three("-epoch-9-avg-2"), "encoder-epoch-9-avg-2.int8.onnx")
    assert beside(model / "encoder-epoch-9-avg-2.int8.onnx") == {"encoder-epoch-9-avg-2.onnx": "--precision fp32"}


def test_an_average_leaves_the_other_epochs(tmp_path: Path) -> None:
    model = folder_of(tmp_path, *(f"epoch-{epoch}.pt" for epoch in range(1, 13)), "checkpoint-4000.pt")
    others = also_there(model, [model / "epoch-11.pt", model / "epoch-12.pt"])
    assert list(others)[:2] == ["epoch-10.pt", "epoch-9.pt"]
    assert others["epoch-10.pt"] == "--epoch 10"
    assert list(others.items())[-1] == ("checkpoint-4000.pt", "--iter 4000")
    assert len(others) == 11


def test_chunks_and_modes(tmp_path: Path) -> None:
    labels = ("-epoch-9-avg-2", "-epoch-9-avg-2-chunk-16-left-128", "-epoch-9-avg-2-chunk-32-left-128")
    model = folder_of(tmp_path, *(name for label in labels for name in three(label)))
    assert beside(model) == {
        "encoder-epoch-9-avg-2.onnx": "--offline",
        "encoder-epoch-9-avg-2-chunk-32-left-128.onnx": ITS_PATH,
    }


def test_languages_and_folders(tmp_path: Path) -> None:
    model = folder_of(tmp_path, "en_encoder.onnx", "en_decoder.onnx", "en_joiner.onnx", "lm/epoch-1.pt", "b/epoch-3.pt")
    folder_of(model, *three(""))
    assert beside(model) == {"en_encoder.onnx": "--language en", "b/epoch-3.pt": "--engine torch"}


@pytest.mark.parametrize("shape", ["{}/../{}", "{0}"])
def test_however_the_folder_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    folder_of(tmp_path / "m", "epoch-1.pt", "epoch-2.pt")
    monkeypatch.chdir(tmp_path)
    model = Path(shape.format("m", "m"))
    assert also_there(model, [model / "epoch-2.pt"]) == {"epoch-1.pt": "--epoch 1"}
