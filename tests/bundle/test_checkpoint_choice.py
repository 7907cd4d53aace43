"""Icefall's --epoch, --iter, --avg and --use-averaged-model, against its own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.checkpoint_choice import CheckpointChoice, choose_checkpoints
from moulin.bundle.files import vocabulary_on_disk
from moulin.errors import BundleError, MoulinError, OptionsError


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """A training of 30 epochs, and a checkpoint every 4,000 batches of which the last five are kept."""
    folder = tmp_path / "exp"
    folder.mkdir()
    names = [f"epoch-{n}.pt" for n in range(1, 31)] + [f"checkpoint-{n}.pt" for n in range(84_000, 104_000, 4_000)]
    for name in [*names, "best-train-loss.pt", "checkpoint-bad.pt", "epoch-31.txt"]:
        (folder / name).touch()
    return folder


def epochs(*numbers: int) -> list[str]:
    return [f"epoch-{number}.pt" for number in numbers]


def checkpoints(*thousands: int) -> list[str]:
    return [f"checkpoint-{number}000.pt" for number in thousands]


@pytest.mark.parametrize(
    ("choice", "names", "label"),
    [
        (CheckpointChoice(epoch=30), epochs(30), "epoch-30-avg-1"),
        (CheckpointChoice(epoch=30, avg=1), epochs(30), "epoch-30-avg-1"),
        (CheckpointChoice(epoch=30, avg=9), epochs(*range(22, 31)), "epoch-30-avg-9"),
        (CheckpointChoice(epoch=2, avg=5), epochs(1, 2), "epoch-2-avg-5"),
        (CheckpointChoice(epoch=30, avg=9, use_averaged_model=True), epochs(21, 30), "epoch-30-avg-9"),
        (CheckpointChoice(epoch=30, use_averaged_model=True), epochs(29, 30), "epoch-30-avg-1"),
        (CheckpointChoice(epoch=30, avg=29, use_averaged_model=True), epochs(1, 30), "epoch-30-avg-29"),
        (CheckpointChoice(iteration=100_000), checkpoints(100), "iter-100000-avg-1"),
        (CheckpointChoice(iteration=99_999, avg=3), checkpoints(88, 92, 96), "iter-99999-avg-3"),
        (
            CheckpointChoice(iteration=100_000, avg=3, use_averaged_model=True),
            checkpoints(88, 100),
            "iter-100000-avg-3",
        ),
        (CheckpointChoice(epoch=30, iteration=100_000), checkpoints(100), "iter-100000-avg-1"),
        (CheckpointChoice(epoch=30, iteration=0), epochs(30), "epoch-30-avg-1"),
    ],
)
def test_of_a_folder(exp: Path, choice: CheckpointChoice, names: list[str], label: str) -> None:
    chosen = choose_checkpoints([exp], choice)
    assert [file.name for file in chosen.files] == names
    assert chosen.label == label
    assert chosen.use_averaged_model is choice.use_averaged_model
    assert chosen.is_average is (len(names) > 1)


@pytest.mark.parametrize(
    ("choice", "message", "kind"),
    [
        (CheckpointChoice(epoch=31), r"no epoch-31\.pt; there are epoch-1\.pt to epoch-30\.pt, check", BundleError),
        (CheckpointChoice(epoch=32, avg=3), r"no epoch-31\.pt and no epoch-32\.pt; there are", BundleError),
        (CheckpointChoice(epoch=9, avg=9, use_averaged_model=True), "from epoch 0 on; the first is 1", OptionsError),
        (CheckpointChoice(epoch=0), r"has no epoch-0\.pt", BundleError),
        (CheckpointChoice(iteration=80_000), "Expected 1 checkpoint-N.pt up to 80000 in .*, found 0", BundleError),
        (CheckpointChoice(iteration=100_000, avg=6), "Expected 6 .* found 5", BundleError),
        (CheckpointChoice(iteration=100_000, avg=5, use_averaged_model=True), "Expected 6 .* found 5", BundleError),
        (CheckpointChoice(avg=9), "--avg 9 needs --epoch or --iter", OptionsError),
        (CheckpointChoice(use_averaged_model=True), "Expected two checkpoints to average between", OptionsError),
    ],
)  # fmt: skip
def test_what_is_not_there(exp: Path, choice: CheckpointChoice, message: str, kind: type[MoulinError]) -> None:
    with pytest.raises(kind, match=message):
        choose_checkpoints([exp], choice)


def test_gaps_are_said(exp: Path) -> None:
    (exp / "epoch-12.pt").unlink()
    with pytest.raises(
        BundleError, match=r"no epoch-12\.pt; there are epoch-1\.pt to epoch-11\.pt, epoch-13\.pt to epoch-30"
    ):
        choose_checkpoints([exp], CheckpointChoice(epoch=14, avg=3))
    assert (
        choose_checkpoints([exp], CheckpointChoice(epoch=14, avg=4, use_averaged_model=True)).files[0].name
        == "epoch-10.pt"
    )


def test_a_link_that_leads_nowhere_is_not_there(exp: Path) -> None:
    (exp / "epoch-31.pt").symlink_to(exp / "gone.pt")
    with pytest.raises(BundleError, match=r"no epoch-31\.pt; there are epoch-1\.pt to epoch-30\.pt, check"):
        choose_checkpoints([exp], CheckpointChoice(epoch=31))
    assert choose_checkpoints([exp], CheckpointChoice(epoch=30)).files == (exp / "epoch-30.pt",)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no epoch-3\.pt; it has no epochs at all"):
        choose_checkpoints([tmp_path], CheckpointChoice(epoch=3))


def test_named_files(exp: Path) -> None:
    files = [exp / name for name in epochs(28, 29, 30)]
    chosen = choose_checkpoints(files, CheckpointChoice())
    assert (chosen.files, chosen.label) == (tuple(files), "epoch-30-avg-3")
    assert choose_checkpoints(files, CheckpointChoice(avg=3)) == chosen
    between = choose_checkpoints([exp / "epoch-21.pt", exp / "epoch-30.pt"], CheckpointChoice(use_averaged_model=True))
    assert between.label == "epoch-30-avg-9"
    assert choose_checkpoints([exp], CheckpointChoice()).files[0].name == "epoch-30.pt"
    with pytest.raises(OptionsError, match="Expected one folder of checkpoints for --epoch"):
        choose_checkpoints(files, CheckpointChoice(epoch=30))
    with pytest.raises(OptionsError, match="Expected two checkpoints"):
        choose_checkpoints(files, CheckpointChoice(use_averaged_model=True))
    with pytest.raises(BundleError, match="There is no checkpoint at"):
        choose_checkpoints([exp / "epoch-77.pt"], CheckpointChoice())


@pytest.mark.parametrize("above", ["", "zipformer"])
def test_the_vocabulary(tmp_path: Path, above: str) -> None:
    """Beside the checkpoint, else in Icefall's folders, where there is one language alone."""
    checkpoint = tmp_path / above / "exp" / "epoch-1.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(BundleError, match=r"has no tokens\.txt"):
        vocabulary_on_disk(checkpoint)
    for lang in ("lang_bpe_500", "lang_bpe_5000", "lang_phone"):
        (tmp_path / "data" / lang).mkdir(parents=True)
    (tmp_path / "data" / "lang_phone" / "tokens.txt").touch()
    first = tmp_path / "data" / "lang_bpe_500" / "tokens.txt"
    first.touch()
    assert vocabulary_on_disk(checkpoint) == (first, None)
    second = tmp_path / "data" / "lang_bpe_5000" / "tokens.txt"
    second.touch()
    with pytest.raises(BundleError, match=r"has 2 vocabularies: .*lang_bpe_500/tokens\.txt, .*lang_bpe_5000"):
        vocabulary_on_disk(checkpoint)
    assert vocabulary_on_disk(checkpoint, named=second) == (second, None)
    assert vocabulary_on_disk(checkpoint, named=second.parent) == (second, None)
    with pytest.raises(BundleError, match="There is no"):
        vocabulary_on_disk(checkpoint, named=tmp_path / "nothing.txt")
    beside = checkpoint.parent / "tokens.txt"
    beside.touch()
    assert vocabulary_on_disk(checkpoint) == (beside, None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epoch": 30, "avg": 0}, "Expected avg of at least 1, got 0"),
        ({"epoch": -1}, "Expected epoch of at least 0, got -1"),
        ({"iteration": -1}, "Expected iter of at least 0, got -1"),
    ],
)
def test_numbers_that_no_checkpoint_has(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        CheckpointChoice(**wrong)  # type: ignore[arg-type]
