"""What a process with the model says of itself."""

from __future__ import annotations

from moulin.bulk.local.engine_process import _failure
from moulin.bulk.schema import failed_row, transcribed_table
from moulin.bulk.transcriber import ENGINE_FAILED


def test_the_engines_own_failure_is_told_from_faults_of_files() -> None:
    of_file = failed_row("0", "a.wav", "a.wav: expected 16 kHz")
    of_engine = failed_row("1", "b.wav", f"{ENGINE_FAILED}: the GPU")
    assert _failure(transcribed_table([of_file])) is None
    assert _failure(transcribed_table([of_file, of_engine, of_file])) == f"{ENGINE_FAILED}: the GPU"
