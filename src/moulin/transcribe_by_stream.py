"""Transcription of recordings by a streaming model: through streams, as fast as they go, without cutting.

Endpoints make the segments. `transcribe_files` chooses between this and pieces for an offline model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moulin.audio.source import AudioSource
from moulin.errors import AudioError, ClientError, EngineError, MoulinError, ServerUnavailable
from moulin.live_transcript import LiveTranscript
from moulin.long_audio.cutter import Piece
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.long_audio.recording_blocks import RecordingBlocks, Run
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles
from moulin.outcome import OnProgress, Outcome, in_order, unheard
from moulin.transcript import Transcript

if TYPE_CHECKING:
    from moulin.client.sync_client import Client
    from moulin.engine.stream_recognizer import StreamRecognizer

_STREAMS_AT_ONCE = 16
"""Recordings that step together in process: enough for a full batch on a CPU."""

_AT_ONCE_SEC = 5.0
"""Audio in a request, and between two rounds in process."""


def is_streaming_model(model: Path, engine: EngineChoice = USUAL_ENGINE) -> bool:
    """Whether `model` is an export for live audio, which hears recordings as streams. Raises as loading does."""
    from moulin.models.load_for_engine import load_for_engine

    spec, _ = load_for_engine(model, engine, None)
    return spec.streaming is not None


def stream_on_server(
    sources: Sequence[AudioSource],
    client: Client,
    *,
    changes: Mapping[str, Any],
    jobs: int,
    on_progress: OnProgress = unheard,
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`, with at most `jobs` streams to the client's model at once.

    Raises ServerUnavailable where no server answers, since every other recording would fail too.
    """

    def one(source: AudioSource) -> Outcome:
        blocks, joined = _blocks(source), JoinedTranscript()
        try:
            block = next(blocks, None)
            while block is not None:
                run: Run | None = Run.of(block)
                with client.stream(model=client.model, **changes) as stream:
                    while block is not None and run is not None:
                        whole = run
                        stream.send(block.waveform)
                        on_progress(source, block.end_sec)
                        block = next(blocks, None)
                        run = None if block is None else whole.followed_by(block)
                    joined.add(whole.piece, stream.finish())
            return Outcome(source, joined.transcript(blocks.decoded_sec, blocks.warnings))
        except ServerUnavailable:
            raise
        except (AudioError, ClientError, EngineError) as error:
            return Outcome(source, error)

    yield from in_order(sources, one, jobs)


def stream_in_process(
    sources: Sequence[AudioSource],
    model: Path,
    engine: EngineChoice = USUAL_ENGINE,
    *,
    changes: Mapping[str, Any],
    lm: LanguageModelFiles = NO_FILES,
    on_progress: OnProgress = unheard,
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`. Raises BundleError or EngineError where the model cannot be used."""
    from moulin.models.open_stream_recognizer import open_stream_recognizer
    from moulin.streaming.options import StreamOptions

    options = StreamOptions().updated(changes)
    with (
        open_stream_recognizer(model, engine, max_streams=_STREAMS_AT_ONCE, options=options, lm=lm) as recognizer,
        ThreadPoolExecutor(engine.threads) as readers,
    ):
        waiting = iter(sources)
        unreported: deque[_Hearing] = deque()
        going: list[_Hearing] = []
        while True:
            added = [_Hearing(source, recognizer) for source in islice(waiting, _STREAMS_AT_ONCE - len(going))]
            unreported.extend(added)
            going += added
            if not going:
                return
            _advance(going, recognizer, readers, on_progress)
            going = [hearing for hearing in going if hearing.result is None]
            while unreported and (result := unreported[0].result) is not None:
                yield Outcome(unreported.popleft().source, result)


def _advance(
    going: Sequence[_Hearing], recognizer: StreamRecognizer, readers: Executor, on_progress: OnProgress
) -> None:
    """Take every recording some seconds further, all of them together in each step."""
    for hearing in list(readers.map(_Hearing.read, going)):
        hearing.accept()
    while ready := [hearing for hearing in going if hearing.is_ready]:
        batch = ready[: recognizer.limits.max_batch]
        try:
            recognizer.step([hearing.stream for hearing in batch])
        except EngineError as error:
            for hearing in batch:
                hearing.fail(error)
    for hearing in going:
        hearing.note()
        on_progress(hearing.source, hearing.decoded_sec)


class _Hearing:
    """A recording that goes through a stream, or through one for each of its runs."""

    def __init__(self, source: AudioSource, recognizer: StreamRecognizer) -> None:
        self.source = source
        self.stream = recognizer.open()
        self.result: Transcript | MoulinError | None = None
        self._recognizer = recognizer
        self._blocks, self._joined, self._live = _blocks(source), JoinedTranscript(), LiveTranscript()
        self._run: Run | None = None
        self._next: Piece | None = None
        """Decoded, and not yet heard."""

    @property
    def decoded_sec(self) -> float:
        return self._blocks.decoded_sec

    @property
    def is_ready(self) -> bool:
        return self.result is None and self._recognizer.is_ready(self.stream)

    def read(self) -> _Hearing:
        """Decode the next seconds, in any thread."""
        try:
            if self._next is None:
                self._next = next(self._blocks, None)
        except (AudioError, EngineError) as error:
            self.fail(error)
        return self

    def accept(self) -> None:
        if self.result is not None:
            return
        try:
            if (run := self._run_with_next()) is None or self._next is None:
                self._recognizer.finish(self.stream)
            else:
                self._recognizer.accept(self.stream, self._next.waveform)
                self._run, self._next = run, None
        except AudioError as error:
            self.fail(error)

    def note(self) -> None:
        """Take the changes since the last time."""
        if self.result is not None:
            return
        try:
            update = self._recognizer.update(self.stream)
        except EngineError as error:
            self.fail(error)
            return
        self._live.apply(update)
        if not update.is_final:
            return
        if self._run is not None:
            self._joined.add(self._run.piece, self._live.transcript())
        if self._next is None:
            self._end(self._joined.transcript(self._blocks.decoded_sec, self._blocks.warnings))
        else:
            self._recognizer.close(self.stream)
            self.stream, self._live, self._run = self._recognizer.open(), LiveTranscript(), None

    def _run_with_next(self) -> Run | None:
        """The run with the next block behind it; None where that is of another run, or there is none."""
        if self._next is None:
            return None
        return Run.of(self._next) if self._run is None else self._run.followed_by(self._next)

    def fail(self, error: MoulinError) -> None:
        self._end(error)

    def _end(self, result: Transcript | MoulinError) -> None:
        self.result = result
        self._recognizer.close(self.stream)


def _blocks(source: AudioSource) -> RecordingBlocks:
    return RecordingBlocks(source.recordings, source.selection, _AT_ONCE_SEC)
