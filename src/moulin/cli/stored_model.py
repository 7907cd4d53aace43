"""A checkpoint with what a person says of it, as a folder that every engine and every process takes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from moulin.errors import BundleError

if TYPE_CHECKING:
    from moulin.encoders.recipe import Recipe


def stored_model(model: Path, recipe: Recipe) -> Path:
    """A folder in the cache with the checkpoint that `model` names in moulin's stored form, which keeps what `recipe`
    says, and its vocabulary.

    Raises BundleError, OptionsError, and EngineError where PyTorch is missing.
    """
    from moulin.bundle.checkpoint_files import STORED_NAME, find_checkpoint, require_torch

    require_torch()
    from moulin.bundle.parameters import as_parameters
    from moulin.bundle.spec import name_of
    from moulin.bundle.stored import write_stored
    from moulin.bundle.transducer import load_transducer
    from moulin.export.tensorrt.plan import file_hash
    from moulin.launch.cache import cache_dir

    checkpoint = find_checkpoint(model)
    tokens = checkpoint.parent / "tokens.txt"
    if not tokens.is_file():
        raise BundleError(f"There is no {tokens}", hint="put the vocabulary beside the checkpoint")
    said = json.dumps(as_parameters(recipe), sort_keys=True)
    key = f"{file_hash(checkpoint, tokens)[:16]}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    to = cache_dir() / "checkpoints" / key / name_of(checkpoint.parent).replace("/", "-")
    if to.is_dir():
        return to
    transducer = load_transducer([checkpoint], recipe=recipe)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".new-") as folder:
        new = Path(folder) / "model"
        new.mkdir()
        write_stored(transducer, new / STORED_NAME)
        copy_vocabulary(tokens, new)
        new.rename(to)
    return to


def copy_vocabulary(tokens: Path, to: Path) -> None:
    """tokens.txt, and the bpe.model that it was made from, into the folder `to`."""
    for source, name in ((tokens, "tokens.txt"), (tokens.parent / "bpe.model", "bpe.model")):
        if source.is_file() and source.resolve() != (to / name).resolve():
            (to / name).write_bytes(source.read_bytes())
