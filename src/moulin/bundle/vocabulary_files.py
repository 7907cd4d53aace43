"""Where the vocabulary of a checkpoint is."""

from __future__ import annotations

from pathlib import Path

from moulin.errors import BundleError

NAME = "tokens.txt"


def find_tokens(checkpoint: Path, named: Path | None = None) -> Path | None:
    """The tokens.txt of `checkpoint`: the `named` file, or the one in the `named` folder; else the one beside it; else,
    as Icefall lays them out, the only `data/lang*/tokens.txt` one or two folders above. None where there is none.

    Raises BundleError where `named` is not there, and where there are several.
    """
    if named is not None:
        file = named / NAME if named.is_dir() else named
        if not file.is_file():
            raise BundleError(f"There is no {file}", hint="name the file with --tokens")
        return file
    beside = checkpoint.parent / NAME
    if beside.is_file():
        return beside
    folder = checkpoint.parent.absolute()
    for above in list(folder.parents)[:2]:
        found = sorted(above.glob(f"data/lang*/{NAME}"))
        if len(found) > 1:
            raise BundleError(
                f"There are {len(found)} vocabularies for {checkpoint}: {', '.join(map(str, found))}",
                hint="name the one that the model was trained with: --tokens FILE, or copy it beside the checkpoint",
            )
        if found:
            return found[0]
    return None
