"""Offline recognition: waveforms in, transcripts out."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from moulin.arrays import Floats
from moulin.audio.loudness import loudness
from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.decoding.found import Hypothesis
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import LanguageModelUse
from moulin.decoding.row_graphs import Graphs
from moulin.decoding.row_options import RowOptions
from moulin.engine.asked_for import Abilities, graphs_asked_for
from moulin.engine.pipeline import Pipeline
from moulin.engine.spelling import spell_all
from moulin.errors import MoulinError
from moulin.transcript import Transcript


class Recognizer:
    """Transcribes batches of utterances with one offline model. Safe to call from several threads."""

    def __init__(
        self,
        spec: ModelSpec,
        pipeline: Pipeline,
        *,
        options: DecodingOptions | None = None,
        hotwords: HotwordGraphs | None = None,
        fast_beam_search: bool = False,
        fusion: LanguageModelUse | None = None,
    ) -> None:
        """`options` are the defaults of `transcribe`. `fast_beam_search` says whether the pipeline has that search,
        which otherwise is refused. `hotwords` are the automata of a pipeline that uses them; None refuses hotwords.
        `fusion` is the language model that the pipeline uses, if any."""
        self.spec, self._can = spec, Abilities(hotwords, fast_beam_search, fusion)
        self.pipeline = pipeline
        self.options = options or DecodingOptions()

    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]:
        """Transcribe float32 waveforms [num_samples] (16 kHz, mono, in [-1, 1]), each with its own `options`.

        Raises AudioError where one of them cannot be transcribed (see `check`), EngineError, and ValueError where
        there are other numbers of both.
        """
        waveforms = [self.check_form(waveform) for waveform in waveforms]
        chosen = [self.options] * len(waveforms) if options is None else options
        if len(chosen) != len(waveforms):
            raise ValueError(f"Expected options for each of {len(waveforms)} waveforms, got {len(chosen)}")
        transcripts = []
        for answer in self.transcribe_each(waveforms, chosen, ["waveform"] * len(waveforms)):
            if isinstance(answer, MoulinError):
                raise answer
            transcripts.append(answer)
        return transcripts

    def transcribe_each(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions], names: Sequence[str]
    ) -> list[Transcript | MoulinError]:
        """The transcript or error of each of N waveforms that have passed `check_form`. Errors call waveforms by their
        `names`; a faulty waveform does not affect the others. Raises EngineError."""
        answers: dict[int, Transcript | MoulinError] = {}
        graphs: dict[int, Graphs] = {}
        for position, chosen in enumerate(options):
            try:
                graphs[position] = self.graphs(chosen)
            except MoulinError as error:
                answers[position] = error
        some = list(graphs)

        def answer(rows: Sequence[int], found: Sequence[Hypothesis | MoulinError]) -> None:
            positions = [some[row] for row in rows]
            nbest = [options[position].nbest for position in positions]
            spelt = self._spelt(found, [waveforms[position] for position in positions], nbest)
            answers.update(zip(positions, spelt, strict=True))

        if some:
            self.pipeline(
                [waveforms[position] for position in some],
                RowOptions.of([options[position] for position in some], list(graphs.values())),
                [names[position] for position in some],
                answer,
            )
        return [answers[position] for position in range(len(waveforms))]

    def graphs(self, options: DecodingOptions) -> Graphs:
        """The automata of hotwords, which are kept for the next ones with these `options`. Raises OptionsError for
        options that the model cannot fulfil."""
        return graphs_asked_for(self.spec, options, self._can)

    def check_form(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """The part of `check` that `transcribe_each` does not do itself. Raises AudioError."""
        return self.pipeline.check_form(waveform, what=what)

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`waveform` as `transcribe` uses it; messages call it `what`.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """
        return self.pipeline.check(waveform, what=what)

    @property
    def num_workers(self) -> int:
        """Calls of `transcribe_each` that are worth having under way at once; 1 where larger batches are cheaper."""
        return self.pipeline.num_workers

    @property
    def max_utterance_sec(self) -> float:
        """The longest waveform that `check` lets pass."""
        return self.pipeline.max_utterance_sec

    def close(self) -> None:
        """Stop the worker threads."""
        self.pipeline.close()

    def _spelt(
        self, found: Sequence[Hypothesis | MoulinError], waveforms: Sequence[Floats], nbest: Sequence[int]
    ) -> list[Transcript | MoulinError]:
        """The transcripts of all that were heard, and the errors of the others."""
        frame_sec = self.spec.encoder_frame_sec
        frame_samples = round(frame_sec * SAMPLE_RATE)
        heard = [(row, one) for row, one in enumerate(found) if isinstance(one, Hypothesis)]
        levels = [
            loudness(waveforms[row], frame_samples).tobytes() if one.tokens or one.others else b"" for row, one in heard
        ]
        spelt = spell_all(
            self.spec.tokens,
            [one for _, one in heard],
            frame_sec=frame_sec,
            durations_sec=[len(waveforms[row]) / SAMPLE_RATE for row, _ in heard],
            levels=levels,
            nbest=[nbest[row] for row, _ in heard],
        )
        transcripts = iter(spelt)
        return [next(transcripts) if isinstance(one, Hypothesis) else one for one in found]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
