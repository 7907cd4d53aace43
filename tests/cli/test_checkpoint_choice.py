"""`--epoch`, `--avg` and `--use-averaged-model` of every verb that opens a training's checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from moulin.bundle.checkpoint_choice import CheckpointChoice
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.load import load_bundle
from moulin.bundle.transducer import load_transducer
from moulin.cli.chosen_model import chosen_model
from moulin.cli.model_options import ModelOptions
from moulin.cli.models import load_models
from moulin.errors import BundleError
from tests.bundles import TRAINING

from .command import moulin_here

OFFLINE, CAUSAL = TRAINING / "zipformer2-training", TRAINING / "zipformer2-causal-training"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def icefalls(tmp_path: Path) -> Path:
    """Icefall's own layout: zipformer/exp/epoch-3.pt and data/lang_bpe_500/tokens.txt."""
    exp, lang = tmp_path / "zipformer" / "exp", tmp_path / "data" / "lang_bpe_500"
    exp.mkdir(parents=True)
    lang.mkdir(parents=True)
    for file in OFFLINE.glob("epoch-*.pt"):
        (exp / file.name).symlink_to(file)
    shutil.copy(OFFLINE / "tokens.txt", lang)
    return exp


def is_the_average(model: Path, expected: Path) -> None:
    """`model` has the parameters of Icefall's average in `expected`."""
    found = load_transducer([model]).tensors()
    wanted = torch.load(expected, weights_only=True)["model"]
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("folder", "choice", "expected"),
    [
        (OFFLINE, CheckpointChoice(epoch=3, avg=2), "expected-avg-2-3.pt"),
        (OFFLINE, CheckpointChoice(epoch=3, avg=2, use_averaged_model=True), "expected-averaged-model-1-3.pt"),
        (CAUSAL, CheckpointChoice(epoch=3, avg=2, use_averaged_model=True), "expected-averaged-model-1-3.pt"),
    ],
)
def test_the_average_is_made_once(
    folder: Path, choice: CheckpointChoice, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = chosen_model([folder], choice)
    assert model.name == "model.safetensors"
    assert model.parent.name == f"{folder.name}-epoch-3-avg-2"
    assert (model.parent / "tokens.txt").read_text() == (folder / "tokens.txt").read_text()
    is_the_average(model, folder / expected)
    # The options of training that no tensor tells are kept.
    assert load_transducer([model]).encoder.recipe.num_heads == (4, 2, 4)
    monkeypatch.delattr("moulin.bundle.transducer.load_transducer")
    assert chosen_model([folder], choice) == model


def test_a_file_that_needs_nothing_is_itself() -> None:
    assert chosen_model([OFFLINE], CheckpointChoice(epoch=2)) == OFFLINE / "epoch-2.pt"
    assert chosen_model([OFFLINE]) == OFFLINE
    assert chosen_model([OFFLINE / "epoch-1.pt"], tokens=OFFLINE) == OFFLINE / "epoch-1.pt"


def test_what_changes_is_made_anew(icefalls: Path) -> None:
    choice = CheckpointChoice(epoch=3, avg=2)
    first = chosen_model([icefalls], choice)
    (icefalls / "epoch-2.pt").unlink()
    shutil.copy(OFFLINE / "epoch-1.pt", icefalls / "epoch-2.pt")
    second = chosen_model([icefalls], choice)
    tokens = icefalls.parents[1] / "data" / "lang_bpe_500" / "tokens.txt"
    tokens.write_text(tokens.read_text().replace("d ", "ð ", 1))
    third = chosen_model([icefalls], choice)
    assert len({first, second, third}) == 3


def test_icefalls_layout(icefalls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The vocabulary comes from data/lang_bpe_500, with a line that says so; nothing is copied."""
    assert chosen_model([icefalls]) == icefalls
    tokens = icefalls.parents[1] / "data" / "lang_bpe_500" / "tokens.txt"
    assert capsys.readouterr().err == f"Taking the vocabulary {tokens}\n"
    assert load_checkpoint_spec(icefalls, streaming=False).tokens_file == tokens


def test_inspect_of_an_average(icefalls: Path) -> None:
    done = moulin_here("inspect", icefalls, "--epoch", 3, "--avg", 2, "--use-averaged-model", "--json").expect(0)
    facts = json.loads(done.out)
    assert facts["averaged"] == ["epoch-1.pt", "epoch-3.pt"]
    assert facts["average"] == "epoch-3-avg-2"
    assert facts["tokens"].endswith("data/lang_bpe_500/tokens.txt")
    files = (icefalls / "epoch-1.pt", icefalls / "epoch-3.pt")
    assert json.loads(moulin_here("inspect", *files, "--use-averaged-model", "--json").expect(0).out) == facts
    tokens = moulin_here("inspect", icefalls, "--tokens", CAUSAL / "tokens.txt", "--json").expect(0)
    assert json.loads(tokens.out)["tokens"] == str(CAUSAL / "tokens.txt")
    table = moulin_here("inspect", icefalls, "--epoch", 3, "--avg", 2).expect(0).out
    assert "epoch-2.pt, epoch-3.pt" in table
    missing = moulin_here("inspect", icefalls, "--epoch", 4, "--avg", 2).expect(1)
    assert "has no epoch-4.pt; there are epoch-1.pt to epoch-3.pt" in missing.err


def test_export_of_an_average(icefalls: Path, tmp_path: Path) -> None:
    """Names are Icefall's, and the parameters those of its average."""
    options = ("--epoch", 3, "--avg", 2, "--use-averaged-model", "--safetensors")
    moulin_here("export", icefalls, *options, "--to", tmp_path / "model").expect(0)
    assert load_bundle(tmp_path / "model").files.encoder.name == "encoder-epoch-3-avg-2.onnx"
    is_the_average(tmp_path / "model" / "model.safetensors", OFFLINE / "expected-averaged-model-1-3.pt")


def test_export_of_a_causal_average_for_streams(tmp_path: Path) -> None:
    """Chunk and left context are those of its training: chunk_size 16, left_context_frames 64."""
    options = ("--epoch", 3, "--avg", 2, "--use-averaged-model", "--streaming")
    moulin_here("export", CAUSAL, *options, "--to", tmp_path / "model").expect(0)
    assert load_bundle(tmp_path / "model").files.encoder.name == "encoder-epoch-3-avg-2-chunk-16-left-64.onnx"


@pytest.mark.parametrize("streaming", [False, True])
def test_what_serve_loads(streaming: bool) -> None:
    (model,) = load_models(
        [CAUSAL],
        mode="streaming" if streaming else None,
        said=ModelOptions(CheckpointChoice(epoch=3, avg=2, use_averaged_model=True)),
    )
    assert model.spec.mode == ("streaming" if streaming else "offline")
    is_the_average(model.spec.file, CAUSAL / "expected-averaged-model-1-3.pt")


def test_several_files_are_one_model() -> None:
    files = [OFFLINE / "epoch-2.pt", OFFLINE / "epoch-3.pt"]
    (model,) = load_models(files)
    is_the_average(model.spec.file, OFFLINE / "expected-avg-2-3.pt")


@pytest.mark.parametrize("options", [(), ("--link",), ("--epoch", 3, "--avg", 2)], ids=["copied", "linked", "average"])
def test_a_repository_has_one_file_and_its_vocabulary(
    options: tuple[object, ...], icefalls: Path, tmp_path: Path
) -> None:
    moulin_here("repo", "build", icefalls, *options, "--to", tmp_path / "repository").expect(0)
    bundle = tmp_path / "repository" / "transducer" / "1" / "bundle"
    file = bundle / ("model.safetensors" if "--avg" in options else "epoch-3.pt")
    assert {path.name for path in bundle.iterdir()} == {file.name, "tokens.txt"}
    if "--avg" in options:
        is_the_average(file, OFFLINE / "expected-avg-2-3.pt")
    else:
        assert file.read_bytes() == (OFFLINE / "epoch-3.pt").read_bytes()


def test_without_a_vocabulary(icefalls: Path) -> None:
    shutil.rmtree(icefalls.parents[1] / "data")
    with pytest.raises(BundleError, match=r"has no tokens\.txt") as caught:
        chosen_model([icefalls], CheckpointChoice(epoch=3, avg=2))
    assert "--tokens" in str(caught.value.hint)
    named = chosen_model([icefalls], CheckpointChoice(epoch=3, avg=2), tokens=OFFLINE / "tokens.txt")
    assert (named.parent / "tokens.txt").is_file()
