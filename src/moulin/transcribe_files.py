"""Transcription of many recordings by a server or by a model in this process; a faulty one does not stop the others.

Recordings may be longer than a model takes at once: they are decoded and cut while they are transcribed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from moulin.audio.selection import MIX, Selection
from moulin.audio.source import AudioSource
from moulin.errors import AudioError, BundleError, ClientError, EngineError, MoulinError, ServerUnavailable
from moulin.long_audio.cutter import Piece
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.long_audio.pieces import MAX_PIECE_SEC
from moulin.long_audio.recording_pieces import RecordingPieces
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles
from moulin.outcome import OnProgress, Outcome, in_order, unheard
from moulin.transcribe_by_stream import is_streaming_model, stream_in_process, stream_on_server
from moulin.transcript import Transcript

if TYPE_CHECKING:
    from moulin.client.gateway_address import GatewayAddress
    from moulin.engine.recognizer import Recognizer

_FILES_AT_ONCE = 64
"""Recordings in a group in process: enough to sort by length and keep all threads busy, few enough for memory."""

_PIECES_AT_ONCE = 16
"""Pieces of long recordings in a batch, which holds 8 minutes."""


def transcribe_on_server(
    sources: Sequence[AudioSource],
    url: str,
    *,
    model: str,
    changes: Mapping[str, Any],
    jobs: int,
    on_progress: OnProgress = unheard,
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`, with at most `jobs` concurrent requests. A streaming model hears them as
    streams.

    Raises ServerUnavailable where no server answers, since every other recording would fail too.
    """
    from moulin.client.sync_client import Client

    with Client(url, model=model) as client, ThreadPoolExecutor(jobs) as senders:
        served = {model.name: model for model in client.models()}.get(client.model)
        if served is not None and served.streaming:
            yield from stream_on_server(sources, client, changes=changes, jobs=jobs, on_progress=on_progress)
            return
        # For a missing model, whose requests will fail, a default.
        longest_sec = served.max_utterance_sec if served is not None else MAX_PIECE_SEC
        places = Semaphore(2 * jobs)  # as many pieces decoded ahead as being transcribed

        def send(piece: Piece) -> Transcript:
            try:
                return client.transcribe(piece.waveform, **changes)
            finally:
                places.release()

        def one(source: AudioSource) -> Outcome:
            pieces = RecordingPieces(source.recordings, source.selection, max_utterance_sec=longest_sec)
            joined = JoinedTranscript()
            running: deque[tuple[Piece, Future[Transcript]]] = deque()

            def hear() -> None:
                piece, heard = running.popleft()
                joined.add(piece, heard.result())
                on_progress(source, piece.end_sec)

            try:
                for piece in pieces:
                    places.acquire()
                    running.append((piece, senders.submit(send, piece)))
                    while running and running[0][1].done():
                        hear()
                while running:
                    hear()
                return Outcome(source, joined.transcript(pieces.decoded_sec, pieces.warnings))
            except ServerUnavailable:
                raise
            except (AudioError, ClientError, EngineError) as error:
                return Outcome(source, error)

        yield from in_order(sources, one, jobs)


def transcribe_on_gateway(
    sources: Sequence[AudioSource],
    address: GatewayAddress,
    *,
    model: str | None,
    changes: Mapping[str, Any],
    jobs: int,
    on_progress: OnProgress = unheard,
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`, which are sent as they are, at most `jobs` at once. None is the gateway's
    default model.

    Raises OptionsError for options that the gateway's REST does not have, and ServerUnavailable where no gateway
    answers.
    """
    from moulin.client.gateway_recordings import DEFAULT_MODEL, GatewayClient, rest_fields

    client, fields = GatewayClient(address, model=model or DEFAULT_MODEL), rest_fields(changes)

    def one(source: AudioSource) -> Outcome:
        try:
            with source.opened() as (file, size):
                chosen = [*fields, *_selection_fields(source.selection)]
                transcript = client.transcribe(file, size, Path(source.name).name, chosen)
        except ServerUnavailable:
            raise
        except (AudioError, ClientError) as error:
            return Outcome(source, _by_its_name(error, source))
        on_progress(source, transcript.duration_sec)
        return Outcome(source, transcript)

    yield from in_order(sources, one, jobs)


def _by_its_name(error: MoulinError, source: AudioSource) -> MoulinError:
    """`error` about the recording by the name that it has here: a gateway is told no folders."""
    name = Path(source.name).name
    if error.message.startswith(f"{name} "):
        return type(error)(source.name + error.message.removeprefix(name), hint=error.hint)
    return error


def _selection_fields(selection: Selection) -> Iterator[tuple[str, str]]:
    if selection.channels != MIX.channels:
        yield "channels", selection.channels
    if selection.track is not None:
        yield "track", selection.track


def transcribe_in_process(
    sources: Sequence[AudioSource],
    model: Path,
    engine: EngineChoice = USUAL_ENGINE,
    *,
    changes: Mapping[str, Any],
    lm: LanguageModelFiles = NO_FILES,
    on_progress: OnProgress = unheard,
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`. An export for live audio hears them as streams. Raises BundleError or
    EngineError where the model cannot be used."""
    from moulin.decoding.options import DecodingOptions
    from moulin.models.open_recognizer import open_recognizer

    options = DecodingOptions().updated(changes)
    try:
        opened = open_recognizer(model, engine, options=options, lm=lm)
    except BundleError:
        if not is_streaming_model(model, engine):
            raise
        yield from stream_in_process(sources, model, engine, changes=changes, lm=lm, on_progress=on_progress)
        return
    with opened as recognizer, ThreadPoolExecutor(engine.threads) as readers:
        waiting = iter(sources)
        while group := [_Reading(source, recognizer) for source in islice(waiting, _FILES_AT_ONCE)]:
            yield from _transcribe_group(group, recognizer, readers, on_progress)


def _transcribe_group(
    group: Sequence[_Reading], recognizer: Recognizer, readers: Executor, on_progress: OnProgress
) -> Iterator[Outcome]:
    """Outcomes of a group, in rounds: some pieces of each recording are transcribed while the next are decoded."""
    from moulin.engine.together import answer_together

    unreported = deque(group)
    taking = _start_taking(group, readers)
    while unreported:
        taken = [(reading, future.result()) for reading, future in taking]
        taking = _start_taking([reading for reading, pieces in taken if pieces], readers)
        batch = [(reading, piece) for reading, pieces in taken for piece in pieces]
        heard = answer_together([piece.waveform for _, piece in batch], recognizer.transcribe)
        for (reading, piece), result in zip(batch, heard, strict=True):
            reading.add(piece, result)
            on_progress(reading.source, piece.end_sec)
        going = [reading for reading, _ in taking]
        while unreported and unreported[0] not in going:
            yield unreported.popleft().outcome()


def _start_taking(readings: Sequence[_Reading], readers: Executor) -> list[tuple[_Reading, Future[list[Piece]]]]:
    count = max(1, _PIECES_AT_ONCE // max(1, len(readings)))
    return [(reading, readers.submit(reading.take, count)) for reading in readings]


class _Reading:
    """A recording that is being read and transcribed."""

    def __init__(self, source: AudioSource, recognizer: Recognizer) -> None:
        self.source = source
        self._check = recognizer.check
        self._pieces = RecordingPieces(
            source.recordings, source.selection, max_utterance_sec=recognizer.max_utterance_sec
        )
        self._joined = JoinedTranscript()
        self._error: MoulinError | None = None

    def take(self, count: int) -> list[Piece]:
        """Up to `count` next pieces; none after an error."""
        if self._error is not None:
            return []
        try:
            pieces = list(islice(self._pieces, count))
            for piece in pieces:
                self._check(piece.waveform)
        except (AudioError, EngineError) as error:
            self._error = error
            return []
        return pieces

    def add(self, piece: Piece, heard: Transcript | EngineError) -> None:
        if isinstance(heard, EngineError):
            self._error = heard
        else:
            self._joined.add(piece, heard)

    def outcome(self) -> Outcome:
        pieces = self._pieces
        return Outcome(self.source, self._error or self._joined.transcript(pieces.decoded_sec, pieces.warnings))
