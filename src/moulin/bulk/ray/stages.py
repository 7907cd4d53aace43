"""What Ray's workers do: tables of recordings to audio, and audio to transcripts, each in a process that may crash.

Ray starts a worker again that has died, and the work that it had: a recording that kills whoever touches it would be
tried for ever. So libraries and model run in processes of the worker's own, as on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from moulin.bulk.local.kept_decoder import KeptDecoder
from moulin.bulk.local.kept_engine import KeptEngine
from moulin.bulk.local.settings import DecodingSettings
from moulin.bulk.schema import DECODED, TRANSCRIBED, failed_row, transcribed_table
from moulin.bulk.transcriber import Transcriber
from moulin.errors import EngineError, MoulinError


def decoded_batch(recordings: Any, settings: DecodingSettings) -> Iterator[Any]:
    """A task of Ray Data: a table of the schema RECORDINGS to tables of the schema DECODED."""
    if recordings.num_rows:
        yield from _decoder(settings)(recordings)
    else:
        yield DECODED.empty_table()


@cache
def _decoder(settings: DecodingSettings) -> KeptDecoder:
    """One for all tasks of a worker: it takes a second to start."""
    return KeptDecoder(settings)


class TranscribedBatch:
    """An actor of Ray Data: tables of the schema DECODED to tables of the schema TRANSCRIBED."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._engine = KeptEngine(transcriber)
        self._engine.start()

    def __call__(self, decoded: Any) -> Any:
        if not decoded.num_rows:
            return TRANSCRIBED.empty_table()
        try:
            return self._engine(decoded)
        except MoulinError as error:
            return unusable(error)


_UNUSABLE = "\0unusable"
"""The id of a row that is no recording's."""


def unusable(error: MoulinError) -> Any:
    """A table that says that the model cannot be used: of an exception Ray would hand on no more than a traceback."""
    said = json.dumps({"message": error.message, "hint": error.hint})
    return transcribed_table([failed_row(_UNUSABLE, "", said)])


def check_usable(transcribed: Any) -> None:
    """Raises EngineError where `transcribed` is a table of `unusable`."""
    if transcribed.num_rows == 1 and transcribed.column("id")[0].as_py() == _UNUSABLE:
        raise EngineError(**json.loads(transcribed.column("error")[0].as_py()))
