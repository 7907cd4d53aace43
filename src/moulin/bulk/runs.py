"""Runs of rows that are windows of the same audio, one behind another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc

from moulin.arrays import Ints


def run_begins(recordings: Any) -> Ints | None:
    """The rows of a table of recordings with which runs of the same audio begin, and the number of rows; None where
    every row is a whole recording."""
    count = recordings.num_rows
    if recordings.column("offset_sec").null_count == count:
        return None
    differs = np.zeros(max(count - 1, 0), bool)
    for name in ("path", "channels", "track"):
        column = pc.fill_null(recordings.column(name), "")
        differs |= pc.not_equal(column.slice(1), column.slice(0, len(differs))).to_numpy()
    return np.concatenate([[0], np.flatnonzero(differs) + 1, [count]])
