"""A process that decodes, and crashes on each recording called `crash.flac`."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import moulin.bulk.local.decoding_process as usual
from moulin.audio.selection import Selection
from moulin.bulk.decode import opened
from moulin.bulk.local.child import run_child
from moulin.long_audio.recording_pieces import Blocks


def crashing(path: str, selection: Selection, name: str) -> Sequence[tuple[Selection, Blocks]]:
    if name.endswith("/crash.flac"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return opened(path, selection, name)


if __name__ == "__main__":
    usual._opened = crashing
    run_child(usual.serve)
