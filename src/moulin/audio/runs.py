"""Runs: pieces of different lengths behind each other in one array, handled without a loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.waveform import as_floats

_BLOCK = 128
_GROUP = 256
"""Samples in a block, and blocks copied at a time: few, so that converted samples are still in the cache."""


def starts_of(lengths: Ints) -> Ints:
    """Where each of the runs with `lengths` [N] begins."""
    starts: Ints = np.cumsum(lengths) - lengths
    return starts


def places_in(lengths: Ints) -> tuple[Ints, Ints]:
    """For each item of all runs, in order: the number of its run, and its place within that."""
    runs = np.repeat(np.arange(len(lengths)), lengths)
    return runs, np.arange(len(runs)) - np.repeat(starts_of(lengths), lengths)


def copy_runs(source: Floats | NDArray[np.int16], target: Floats, sources: Ints, targets: Ints, lengths: Ints) -> None:
    """Copy runs of samples: the i-th has `lengths[i]` and goes from `sources[i]` in `source`, float32 or int16 [n], to
    `targets[i]` in `target`, float32 [m]. Runs do not overlap in `target`."""
    whole = lengths // _BLOCK
    runs, places = places_in(whole)
    if len(runs):
        blocks_from, blocks_to = sliding_window_view(source, _BLOCK), _writable_blocks(target)
        begins, ends = sources[runs] + places * _BLOCK, targets[runs] + places * _BLOCK
        for first in range(0, len(runs), _GROUP):
            group = slice(first, first + _GROUP)
            blocks_to[ends[group]] = as_floats(blocks_from[begins[group]])
    runs, places = places_in(lengths - whole * _BLOCK)
    places += whole[runs] * _BLOCK
    target[targets[runs] + places] = as_floats(source[sources[runs] + places])


def _writable_blocks(target: Floats) -> NDArray[Any]:
    """A view with a row for every place at which a block may begin: one assignment fills many."""
    return sliding_window_view(target, _BLOCK, writeable=True)
