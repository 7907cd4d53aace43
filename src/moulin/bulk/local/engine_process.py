"""A process with the model on one device: tables of audio in, tables of transcripts out."""

from __future__ import annotations

import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.compute as pc

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bulk.local.channel import Channel, Message, taken_object, taken_table
from moulin.bulk.local.child import run_child
from moulin.bulk.transcriber import ENGINE_FAILED, Transcriber
from moulin.errors import MoulinError
from moulin.processor import load_with_few_threads

TABLES_AT_ONCE = 2
"""Tables under way in one process: while the rows of one are made, cores or card work on the other."""


def serve(channel: Channel) -> None:
    """Open the model, and transcribe until the executor closes its end."""
    message = channel.receive()
    if message is None:
        return
    transcriber: Transcriber = taken_object(message)
    load_with_few_threads(transcriber.engine.threads or len(os.sched_getaffinity(0)))
    try:
        transcriber.open()
    except MoulinError as error:
        channel.send({"fatal": error.message, "hint": error.hint})
        return
    channel.send({"ready": True})
    with ThreadPoolExecutor(TABLES_AT_ONCE) as threads:
        while (message := channel.receive()) is not None:
            threads.submit(_transcribe, message, transcriber, channel)


def _transcribe(message: Message, transcriber: Transcriber, channel: Channel) -> None:
    """Send the transcripts of a table, or end the process: the executor gives the table to a new one."""
    try:
        transcribed = transcriber(taken_table(message))
        failure = _failure(transcribed)
        if failure is not None and not _is_well(transcriber):
            print(f"{transcriber.device}: {failure}", file=sys.stderr, flush=True)
            os._exit(1)  # a card that has failed once fails everything after; a new process begins anew
        channel.send_table({"transcribed": message.fields["table"]}, transcribed)
    except BrokenPipeError:
        os._exit(0)  # the executor has gone
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _failure(transcribed: Any) -> str | None:
    """The error of the first row with which the engine itself failed."""
    errors = transcribed.column("error")
    failed = errors.filter(pc.fill_null(pc.starts_with(errors, ENGINE_FAILED), fill_value=False))
    return str(failed[0].as_py()) if len(failed) else None


def _is_well(transcriber: Transcriber) -> bool:
    try:
        transcriber.open().transcribe([np.zeros(SAMPLE_RATE, np.float32)])
    except Exception:
        return False
    return True


if __name__ == "__main__":
    run_child(serve)
