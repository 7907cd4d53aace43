"""From checkpoints on disk to the networks of `moulin.encoders`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moulin.bundle.checkpoint import Checkpoint, average_between, average_checkpoints, read_checkpoint
from moulin.bundle.stored import SUFFIX, read_stored
from moulin.encoders.transducer import Transducer
from moulin.errors import BundleError, OptionsError


def load_transducer(files: Sequence[Path], *, use_averaged_model: bool = False, causal: bool = False) -> Transducer:
    """The transducer in a checkpoint file, in moulin's stored form, or the average of several checkpoints.

    `use_averaged_model` takes, of two checkpoints, the average over all batches of training between them (Icefall's
    option of that name). `causal` as for `Transducer.from_tensors`. Raises BundleError and OptionsError.
    """
    if not files:
        raise OptionsError("Expected at least one checkpoint")
    if len(files) == 1 and files[0].suffix == SUFFIX:
        tensors, causal = read_stored(files[0])
    else:
        tensors = _read(files, use_averaged_model).tensors
    try:
        return Transducer.from_tensors(tensors, causal=causal)
    except ValueError as error:
        raise BundleError(f"{files[-1]} does not fit: {error}") from error


def _read(files: Sequence[Path], use_averaged_model: bool) -> Checkpoint:
    if use_averaged_model:
        if len(files) != 2:
            raise OptionsError(
                f"Expected two checkpoints, an earlier and a later one, to average between, got {len(files)}"
            )
        return average_between(*files)
    return read_checkpoint(files[0]) if len(files) == 1 else average_checkpoints(files)
