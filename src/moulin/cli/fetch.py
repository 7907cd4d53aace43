"""`moulin fetch`: a published model into the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.arguments import DeviceOption, LanguageOption, PrecisionOption
from moulin.cli.bars import bars, bars_are_shown
from moulin.cli.messages import say
from moulin.models.engine_choice import EngineChoice

if TYPE_CHECKING:
    from moulin.bundle.choice import Mode, Wish
    from moulin.fetch.fetched import Fetched
    from moulin.fetch.progress import Progress


def add_to(app: typer.Typer) -> None:
    app.command(
        name="fetch",
        epilog="Example: moulin fetch zipformer-en-streaming (or at once: moulin serve zipformer-en-streaming)",
    )(fetch)


def fetch(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|hf://OWNER/REPO|URL",
            help="A known name, a model on the Hugging Face hub, or a .tar.bz2 as sherpa-onnx publishes them.",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit on the hub.  [default: the known one, or main]")
    ] = None,
    precision: PrecisionOption = None,
    language: LanguageOption = None,
    streaming: Annotated[
        bool | None,
        typer.Option(
            "--streaming/--offline", help="Which export, where there are some of both kinds.  [default: streaming]"
        ),
    ] = None,
    device: DeviceOption = "cpu",
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Copy the model's files there too, as into an image or a pod's volume."),
    ] = None,
    list_known: Annotated[bool, typer.Option("--list", help="Print the models that are known by name.")] = False,
) -> None:
    """Bring a model into the cache (~/.cache/moulin) and print its folder.

    Only the files that are needed come, what is there does not come again, and an interrupted fetch goes on where it
    stopped. hf://OWNER/REPO@REVISION/FOLDER names a revision and a folder, URL#sha256=... a checksum. The same names
    work in place of MODEL: moulin serve hf://OWNER/REPO.
    """
    if list_known:
        _list_known()
        return
    if model is None:
        raise typer.BadParameter("a name, hf://OWNER/REPO or a URL; --list shows names", param_hint="MODEL")
    from moulin.cli.wish import mode_of, wish_of

    wish = wish_of(EngineChoice(device=device, precision=precision), mode=mode_of(streaming), language=language)
    folder = _fetch(model, wish, revision).folder
    _refuse_foreign(folder)
    if to is not None:
        from moulin.fetch.copied import copy_model

        copy_model(folder, to)
        folder = to
    typer.echo(folder)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A folder, or an encoder or checkpoint file; `mode` follows from its name or its neighbours'."""

    path: Path
    mode: Mode | None = None


def local_model(model: Path, wish: Wish) -> LocalModel:
    """The local model for MODEL: the path itself if it exists, else the published model of that name, which is fetched.
    Where a folder holds several models, the file of the chosen one, and a line says which."""
    try:
        if model.exists():
            return _chosen_on_disk(model, wish)
    except OSError:  # an address can be longer than a file's name may be
        pass
    from moulin.fetch.resolve import parse_source

    if parse_source(str(model)) is None:
        return LocalModel(model)  # reading the model raises the error
    fetched = _fetch(str(model), wish)
    return LocalModel(fetched.folder, fetched.mode)


def _chosen_on_disk(model: Path, wish: Wish) -> LocalModel:
    from moulin.bundle.files import choose_on_disk

    if not model.is_dir():
        return LocalModel(model, wish.mode)
    choice = choose_on_disk(model, wish)
    _say_notes(choice.notes)
    # The folder itself is returned where `find_bundle_files` and `find_checkpoint`, which get no wish, choose the same
    # file.
    alone = not choice.notes and _default_of(model) == choice.file
    return LocalModel(model if alone else Path(choice.file), choice.mode)


def _default_of(model: Path) -> PurePosixPath | None:
    """The file that is chosen in the folder without a wish."""
    from moulin.bundle.files import choose_on_disk
    from moulin.errors import BundleError

    try:
        return choose_on_disk(model).file
    except BundleError:
        return None


def _refuse_foreign(model: Path) -> None:
    """Refuse a fetched model of another kind now, not when it is served. Needs the package onnx."""
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.bundle.choice import Wish
    from moulin.bundle.files import choose_on_disk
    from moulin.errors import EngineError

    if is_checkpoint(model):
        return
    from moulin.bundle.foreign import refuse_foreign, refuse_other_kinds
    from moulin.bundle.onnx_graph import read_onnx_graph

    choice = choose_on_disk(model, Wish(form="onnx"))
    refuse = refuse_other_kinds if choice.head == "ctc" else refuse_foreign
    with suppress(EngineError):
        refuse(read_onnx_graph(Path(choice.file)))


def _say_notes(notes: Sequence[str]) -> None:
    for note in notes:
        say(note)


def _fetch(model: str, wish: Wish, revision: str | None = None) -> Fetched:
    from moulin.fetch.errors import size_text
    from moulin.fetch.known_models import known_model
    from moulin.fetch.resolve import fetch_model
    from moulin.launch.cache import cache_dir

    known = known_model(model)
    if known:
        say(f"{known.name}: {known.languages}, {known.license} ({known.page})")
        wish = replace(wish, mode=wish.mode or known.mode)
    with _shown_progress() as progress:
        fetched = fetch_model(model, cache_dir(), revision=revision, wish=wish, progress=progress)
    _say_notes(fetched.notes)
    if not fetched.reached:
        say("The hub cannot be reached; taking what was fetched before.")
    elif fetched.received_bytes:
        say(f"Fetched {size_text(fetched.received_bytes)}.")
    return fetched


@contextmanager
def _shown_progress() -> Iterator[Progress]:
    """A bar for each file on a terminal, and else a line for each."""
    if not bars_are_shown():
        yield _Lines()
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with bars(*columns) as shown:
        tasks = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name, completed=done, total=total)
            shown.update(tasks[name], completed=done, total=total)

        yield show


class _Lines:
    def __init__(self) -> None:
        self._begun: set[str] = set()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        from moulin.fetch.errors import size_text

        if name not in self._begun:
            self._begun.add(name)
            rest = f" ({size_text(total - done)})" if total is not None else ""
            say(f"{name}{rest} ...")


def _list_known() -> None:
    from moulin.fetch.known_models import KNOWN_MODELS

    rows = [("NAME", "LICENCE", "SIZE", "INT8", "MODE", "LANGUAGE", "WHAT IT IS")]
    rows += [
        (
            model.name,
            model.license,
            _megabytes(model.size_mb),
            _megabytes(model.int8_size_mb),
            model.mode,
            model.languages,
            f"{model.about}; {model.page}",
        )
        for model in KNOWN_MODELS
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[-1]]))


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size} MB"
