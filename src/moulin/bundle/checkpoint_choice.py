"""The checkpoints that `--epoch`, `--iter`, `--avg` and `--use-averaged-model` select, by Icefall's rules
(`zipformer/export.py`; every recipe has the same). Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from moulin.bundle.checkpoint_files import find_checkpoint
from moulin.errors import BundleError, OptionsError
from moulin.options import Bounds, check_options, option

_NUMBERED = re.compile(r"(?P<kind>epoch|checkpoint)-(?P<number>\d+)\.pt")


@dataclass(frozen=True, slots=True)
class CheckpointChoice:
    """The options given. `iteration` takes precedence over `epoch`, as in Icefall, where 0 means not given.

    The last `avg` checkpoints up to the given one are averaged. With `use_averaged_model` the average is over all
    batches between two checkpoints, the given one and the one `avg` earlier.
    """

    help_section: ClassVar[str] = "Checkpoint"

    epoch: int | None = option(
        None,
        "Of a folder of checkpoints take epoch-N.pt; with --avg, epochs up to it.",
        bounds=Bounds(at_least=0),
    )
    iteration: int | None = option(
        None,
        "Instead of epochs, take the latest checkpoint-N.pt with N up to this.",
        flag="--iter",
        bounds=Bounds(at_least=0),
    )
    avg: int | None = option(
        None,
        "How many checkpoints to average, for --epoch and --iter.",
        usual="1",
        bounds=Bounds(at_least=1),
    )
    use_averaged_model: bool = option(
        False,
        "Average over all of training (model_avg), from the checkpoint --avg before --epoch or --iter to it, or from "
        "the first to the second of two files.",
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def is_made(self) -> bool:
        return self != CheckpointChoice()


@dataclass(frozen=True, slots=True)
class ChosenCheckpoints:
    """Checkpoint files, the latest last, and Icefall's name for their average, for example `epoch-30-avg-9`."""

    files: tuple[Path, ...]
    label: str
    use_averaged_model: bool = False

    @property
    def is_average(self) -> bool:
        return len(self.files) > 1


def choose_checkpoints(named: Sequence[Path], choice: CheckpointChoice) -> ChosenCheckpoints:
    """The checkpoints that `choice` selects in the one folder `named`; without --epoch and --iter those of all `named`
    (files, or folders for `find_checkpoint`), to be averaged. Raises OptionsError, and BundleError for a missing file.
    """
    if choice.epoch is None and not choice.iteration:
        return _named(named, choice)
    if len(named) != 1 or not named[0].is_dir():
        raise OptionsError(
            f"Expected one folder of checkpoints for --epoch and --iter, got {', '.join(map(str, named))}",
            hint="name the training's exp folder, or name files and leave out --epoch and --iter",
        )
    folder, avg = named[0], choice.avg or 1
    if choice.iteration:
        files = _iterations(folder, choice.iteration, avg + choice.use_averaged_model)
        label = f"iter-{choice.iteration}-avg-{avg}"
    else:
        epoch = choice.epoch or 0
        files = _epochs(folder, epoch, avg, use_averaged_model=choice.use_averaged_model)
        label = f"epoch-{epoch}-avg-{avg}"
    if choice.use_averaged_model:
        files = [files[0], files[-1]]
    return ChosenCheckpoints(tuple(files), label, choice.use_averaged_model)


def _named(named: Sequence[Path], choice: CheckpointChoice) -> ChosenCheckpoints:
    files = tuple(find_checkpoint(path) for path in named)
    if choice.avg is not None and choice.avg != len(files):
        raise OptionsError(
            f"--avg {choice.avg} needs --epoch or --iter, which say up to where", hint="--epoch 30 --avg 9, for example"
        )
    if choice.use_averaged_model and len(files) != 2:
        raise OptionsError(
            "Expected two checkpoints to average between, an earlier and a later one, or --epoch or --iter, got "
            f"{', '.join(map(str, files))}"
        )
    return ChosenCheckpoints(files, f"{files[-1].stem}-avg-{_apart(files, choice)}", choice.use_averaged_model)


def _apart(files: Sequence[Path], choice: CheckpointChoice) -> int:
    """Icefall's `--avg` for `files`: with the running average the number of epochs between them, else their number."""
    numbers = [int(match["number"]) for file in files if (match := _NUMBERED.fullmatch(file.name))]
    epochs = len(numbers) == len(files) and all(file.name.startswith("epoch-") for file in files)
    return numbers[-1] - numbers[0] if choice.use_averaged_model and epochs else len(files)


def _epochs(folder: Path, epoch: int, avg: int, *, use_averaged_model: bool) -> list[Path]:
    """The last `avg` epochs up to `epoch`, none before 1; with the running average epochs `epoch - avg` and `epoch`."""
    if use_averaged_model:
        start = epoch - avg
        if start < 1:
            raise OptionsError(
                f"--epoch {epoch} --avg {avg} --use-averaged-model averages from epoch {start} on; the first is 1",
                hint=f"--avg {epoch - 1} at most" if epoch > 1 else "leave out --use-averaged-model",
            )
        wanted = [start, epoch]
    else:
        wanted = [epoch] if avg == 1 else [number for number in range(epoch - avg + 1, epoch + 1) if number >= 1]
    files = [folder / f"epoch-{number}.pt" for number in wanted]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise BundleError(
            f"{folder} has no {' and no '.join(missing) or f'epoch-{epoch}.pt'}; {_said(folder)}",
            hint="choose --epoch and --avg among these",
        )
    return files


def _iterations(folder: Path, iteration: int, count: int) -> list[Path]:
    """The last `count` files checkpoint-N.pt with N <= `iteration`."""
    there = [(number, file) for number, file in _there(folder)["checkpoint"] if number <= iteration]
    if len(there) < count:
        raise BundleError(
            f"Expected {count} checkpoint-N.pt up to {iteration} in {folder}, found {len(there)}; {_said(folder)}",
            hint="choose --iter and --avg among these (--use-averaged-model needs one more than --avg)",
        )
    return [file for _, file in there[-count:]]


def _there(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    found: dict[str, list[tuple[int, Path]]] = {"epoch": [], "checkpoint": []}
    for file in folder.iterdir():
        if (match := _NUMBERED.fullmatch(file.name)) and file.is_file():  # a symbolic link may be broken
            found[match["kind"]].append((int(match["number"]), file))
    return {kind: sorted(files) for kind, files in found.items()}


def _said(folder: Path) -> str:
    """A summary of the checkpoints in `folder`; consecutive epochs as first and last."""
    names = []
    for kind, files in _there(folder).items():
        numbers = [number for number, _ in files]
        for index, number in enumerate(numbers):
            begins = kind == "checkpoint" or index == 0 or number != numbers[index - 1] + 1
            if begins:
                names.append([f"{kind}-{number}.pt"])
            else:
                names[-1][1:] = [f"{kind}-{number}.pt"]
    shown = [" to ".join(run) for run in names]
    return (
        f"there are {', '.join(shown[:12])}{', …' if len(shown) > 12 else ''}" if shown else "it has no epochs at all"
    )
