"""A checkpoint, or an average of several, with its vocabulary and the facts given by flags, as one path that every
engine and every process opens."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moulin.bundle.checkpoint_choice import CheckpointChoice, ChosenCheckpoints, choose_checkpoints
from moulin.cli.messages import say

if TYPE_CHECKING:
    from moulin.bundle.tokens import TokenTable
    from moulin.encoders.recipe import Recipe

_TAIL = 2**20


def chosen_model(
    named: Sequence[Path],
    choice: CheckpointChoice = CheckpointChoice(),  # noqa: B008 (it cannot change)
    *,
    tokens: Path | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """A path to the checkpoint that `choice` selects from `named`, beside which its vocabulary is found.

    That is the file itself where it is one and no other `tokens` are named, or the folder that was named for it. Else
    it is a folder in the cache, made the first time, with the vocabulary and a link to the file; or, for an average and
    where `recipe` gives facts, with moulin's stored form. Raises BundleError, OptionsError, and EngineError where
    PyTorch is missing.
    """
    from moulin.bundle.checkpoint_files import require_torch

    chosen = choose_checkpoints(named, choice)
    last = chosen.files[-1]
    vocabulary = vocabulary_of(last, tokens)
    stored = chosen.is_average or recipe is not None
    if not stored and (tokens is None or vocabulary.absolute() == last.absolute().parent / "tokens.txt"):
        return last if choice.is_made or tokens is not None or len(named) > 1 else named[0]
    require_torch()
    to = _folder(chosen, vocabulary, recipe)
    if not to.is_dir():
        if chosen.is_average:
            say(f"{_said(chosen)}, into {to}")
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=".new-") as folder:
            new = Path(folder) / "model"
            new.mkdir()
            _write(chosen, vocabulary, recipe, new, stored=stored)
            try:
                new.rename(to)
            except OSError:  # another process was first
                if not to.is_dir():
                    raise
    return next(file for file in to.iterdir() if file.suffix in (".pt", ".safetensors"))


def vocabulary_of(checkpoint: Path, named: Path | None) -> Path:
    """`vocabulary_on_disk`, with a line on standard error where the file is neither named nor beside the checkpoint."""
    from moulin.bundle.files import vocabulary_on_disk

    found, _ = vocabulary_on_disk(checkpoint, named=named)
    if named is None and found.parent != checkpoint.absolute().parent:
        say(f"Taking the vocabulary {found}")
    return found


def copy_vocabulary(vocabulary: Path, to: Path, table: TokenTable | None = None) -> None:
    """Copy tokens.txt, and the bpe.model beside it, into the folder `to`.

    Where the vocabulary is a bpe.model alone, it is copied, and tokens.txt is written from `table` where one is given.
    """
    from moulin.bundle.tokens import tokens_text

    if vocabulary.suffix == ".model":
        sources = [(vocabulary, "bpe.model")]
        if table is not None:
            (to / "tokens.txt").write_text(tokens_text(table), encoding="utf-8")
    else:
        sources = [(vocabulary, "tokens.txt"), (vocabulary.parent / "bpe.model", "bpe.model")]
    for source, name in sources:
        if source.is_file() and source.resolve() != (to / name).resolve():
            (to / name).write_bytes(source.read_bytes())


def _write(chosen: ChosenCheckpoints, tokens: Path, recipe: Recipe | None, to: Path, *, stored: bool) -> None:
    if stored:
        from moulin.bundle.checkpoint_files import STORED_NAME
        from moulin.bundle.stored import write_stored
        from moulin.bundle.transducer import load_with_facts
        from moulin.encoders.recipe import NOTHING_SAID

        averaged = chosen.use_averaged_model
        loaded = load_with_facts(chosen.files, use_averaged_model=averaged, recipe=recipe or NOTHING_SAID)
        write_stored(loaded.model, to / STORED_NAME)
    else:
        (to / chosen.files[-1].name).symlink_to(chosen.files[-1].resolve())
    copy_vocabulary(tokens, to)


def _folder(chosen: ChosenCheckpoints, tokens: Path, recipe: Recipe | None) -> Path:
    from moulin.bundle.parameters import as_parameters
    from moulin.bundle.spec import name_of
    from moulin.launch.cache import cache_dir

    facts = {
        "files": [_fingerprint(file) for file in chosen.files],
        "averaged": chosen.use_averaged_model,
        "said": as_parameters(recipe) if recipe else {},
        "vocabulary": [_digest(tokens), _digest(tokens.parent / "bpe.model")],
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    name = name_of(chosen.files[-1].parent).replace("/", "-")
    return cache_dir() / "checkpoints" / key / (f"{name}-{chosen.label}" if chosen.is_average else name)


def _fingerprint(file: Path) -> list[object]:
    """Values that change with the file, without reading gigabytes: its path, its time, and its end, where a zip archive
    has the checksums of its members."""
    stat = file.stat()
    with file.open("rb") as opened:
        opened.seek(max(0, stat.st_size - _TAIL))
        tail = hashlib.sha256(opened.read()).hexdigest()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns, tail]


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _said(chosen: ChosenCheckpoints) -> str:
    names = [file.name for file in chosen.files]
    if chosen.use_averaged_model:
        return f"Averaging over the training from {names[0]} to {names[1]}"
    return f"Averaging {', '.join(names)}"
