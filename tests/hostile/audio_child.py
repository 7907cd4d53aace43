"""Decodes files in a process of its own, which FFmpeg may end: `python -m tests.hostile.audio_child FILE...`.

Prints the name of each file before it is decoded, and the outcome behind it: `samples`, `AudioError`, or the type of
another exception.
"""

from __future__ import annotations

import logging
import resource
import sys

import numpy as np

from moulin.audio.decode import read_audio
from moulin.errors import AudioError

_MAX_SEC = 60.0
_MOST_BYTES = 4 << 30


def outcome(file: str) -> str:
    try:
        samples = read_audio(file, max_duration_sec=_MAX_SEC)
    except AudioError as error:
        return "AudioError" if len(str(error)) < 2000 else "an AudioError that is too long"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return "samples" if np.isfinite(samples).all() and len(samples) <= 16_000 * _MAX_SEC else "samples that are none"


def main() -> None:
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for file in sys.argv[1:]:
        print(file, end="\t", flush=True)
        print(outcome(file), flush=True)


if __name__ == "__main__":
    main()
