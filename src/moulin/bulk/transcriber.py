"""Transcription of a table of decoded recordings: the second half of the seam."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bulk.cutting import Probabilities, cut_long, voice_activity
from moulin.bulk.schema import (
    DecodedRecording,
    decoded_recordings,
    failed_row,
    transcribed_row,
    transcribed_table,
)
from moulin.decoding.options import DecodingOptions
from moulin.errors import AudioError, EngineError, OptionsError
from moulin.long_audio.cutter import Piece
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.long_audio.pieces import MAX_PIECE_SEC
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.transcript import Transcript

if TYPE_CHECKING:
    from moulin.engine.recognizer import Recognizer

CPU_BATCH_SEC, GPU_BATCH_SEC = 480.0, 2560.0
"""Seconds of audio in a call of the recognizer, which forms batches of its own of them: enough to keep all threads, or
the card's largest batches, busy."""

_RECOGNITION = "Recognition"
ENGINE_FAILED = f"{_RECOGNITION} failed"
"""The beginning of the error of a recording with which the engine itself failed."""


class Transcriber:
    """A callable for tables that opens its model with the first one, in whatever process that is.

    Pickled by its parameters, without the model. Safe to call from several threads.
    """

    def __init__(
        self,
        model: str | Path,
        device: str | None = None,
        *,
        engine: EngineChoice = USUAL_ENGINE,
        options: DecodingOptions | None = None,
        batch_sec: float | None = None,
    ) -> None:
        """`model` is the path of an offline model; `device` is that of `engine` where it is None. Raises
        OptionsError."""
        self.model = Path(model)
        self.engine = engine if device is None else replace(engine, device=device)
        self.options = options or DecodingOptions()
        if self.options.nbest > 1:
            raise OptionsError(f"Expected nbest 1 in bulk, got {self.options.nbest}: rows have no alternatives")
        self.batch_sec = batch_sec or (CPU_BATCH_SEC if self.engine.gpu is None else GPU_BATCH_SEC)
        self._recognizer: Recognizer | None = None
        self._voice_activity: Probabilities | None = None
        self._opening = threading.Lock()

    @property
    def device(self) -> str:
        """The device that the model runs on."""
        return self.engine.runs_on

    def __reduce__(self) -> tuple[Any, ...]:
        return _transcriber, (self.model, self.engine, self.options, self.batch_sec)

    def __call__(self, decoded: Any) -> Any:
        """A table of the schema DECODED to one of the schema TRANSCRIBED, row by row.

        Pieces that are longer than the model takes are cut at silences. Never raises for a file: its row has an
        `error`. Raises BundleError, EngineError or OptionsError where the model cannot be used.
        """
        recordings = self._cut(decoded_recordings(decoded))
        heard = self._heard(recordings)
        return transcribed_table([_row(recording, heard[at]) for at, recording in enumerate(recordings)])

    def open(self) -> Recognizer:
        """The recognizer, opened if it is not yet. Raises BundleError, EngineError or OptionsError."""
        from moulin.models.open_recognizer import open_recognizer

        with self._opening:
            if self._recognizer is None:
                self._recognizer = open_recognizer(self.model, self.engine, options=self.options)
            return self._recognizer

    def close(self) -> None:
        """Close the model; the next table opens it anew."""
        with self._opening:
            if self._recognizer is not None:
                self._recognizer.close()
                self._recognizer = None

    def _cut(self, recordings: Sequence[DecodedRecording]) -> list[DecodedRecording]:
        return cut_long(recordings, min(MAX_PIECE_SEC, self.open().max_utterance_sec), self._open_voice_activity)

    def _open_voice_activity(self) -> Probabilities:
        with self._opening:
            if self._voice_activity is None:
                self._voice_activity = voice_activity(self.device)
            return self._voice_activity

    def _heard(self, recordings: Sequence[DecodedRecording]) -> list[list[Transcript | EngineError | AudioError]]:
        """What was heard in each piece of each recording."""
        from moulin.engine.together import answer_together

        recognizer = self.open()
        heard: list[list[Any]] = [[None] * len(recording.pieces) for recording in recordings]
        waiting = [
            (at, number, samples)
            for at, recording in enumerate(recordings)
            for number, (_, samples) in enumerate(recording.pieces)
        ]
        for batch in batches(waiting, self.batch_sec):
            checked: list[tuple[int, int, Any]] = []
            for at, number, samples in batch:
                try:
                    checked.append((at, number, recognizer.check(cast(Any, samples))))  # int16 too
                except (AudioError, EngineError) as error:
                    heard[at][number] = error
            answers = answer_together(
                [waveform for _, _, waveform in checked], recognizer.transcribe, what=_RECOGNITION
            )
            for (at, number, _), answer in zip(checked, answers, strict=True):
                heard[at][number] = answer
        return heard


def batches(
    waiting: list[tuple[int, int, NDArray[np.int16]]], batch_sec: float
) -> Iterator[list[tuple[int, int, NDArray[np.int16]]]]:
    """Pieces sorted by length, the longest first, in lists of at most `batch_sec` seconds or of one piece."""
    batch: list[tuple[int, int, NDArray[np.int16]]] = []
    samples = 0
    for one in sorted(waiting, key=lambda one: len(one[2]), reverse=True):
        if batch and samples + len(one[2]) > batch_sec * SAMPLE_RATE:
            yield batch
            batch, samples = [], 0
        batch.append(one)
        samples += len(one[2])
    if batch:
        yield batch


def _row(recording: DecodedRecording, heard: list[Transcript | EngineError | AudioError]) -> dict[str, Any]:
    if recording.error is not None:
        return failed_row(recording.id, recording.path, recording.error)
    joined = JoinedTranscript()
    for (piece, samples), answer in zip(recording.pieces, heard, strict=True):
        if not isinstance(answer, Transcript):
            return failed_row(recording.id, recording.path, str(answer))
        joined.add(Piece(piece.start_samples, samples, piece.place), answer)  # type: ignore[arg-type]
    transcript = joined.transcript(recording.duration_sec, recording.warnings)
    return transcribed_row(recording.id, recording.path, transcript, recording.sound)


def _transcriber(model: Path, engine: EngineChoice, options: DecodingOptions, batch_sec: float) -> Transcriber:
    return Transcriber(model, engine=engine, options=options, batch_sec=batch_sec)
