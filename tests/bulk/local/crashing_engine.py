"""A process with a model that ends over a table with a recording called `poison.flac`."""

from __future__ import annotations

import os
from typing import Any

import moulin.bulk.local.engine_process as usual
from moulin.bulk.local.channel import Message, taken_table
from moulin.bulk.local.child import run_child


def poisoned(message: Message) -> Any:
    table = taken_table(message)
    if any(path.endswith("/poison.flac") for path in table.column("path").to_pylist()):
        os._exit(3)
    return table


if __name__ == "__main__":
    usual.taken_table = poisoned  # type: ignore[attr-defined]
    run_child(usual.serve)
