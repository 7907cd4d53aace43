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
from moulin.engine.spelling import spell
from moulin.engine.word_times import Sound
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

        def answer(position: int, found: Hypothesis | MoulinError) -> None:
            if isinstance(found, Hypothesis):
                answers[position] = self._spell(found, waveforms[position], options[position].nbest)
            else:
                answers[position] = found

        graphs: dict[int, Graphs] = {}
        for position, chosen in enumerate(options):
            try:
                graphs[position] = self.graphs(chosen)
            except MoulinError as error:
                answers[position] = error
        some = list(graphs)
        if some:
            self.pipeline(
                [waveforms[position] for position in some],
                RowOptions.of([options[position] for position in some], list(graphs.values())),
                [names[position] for position in some],
                lambda row, found: answer(some[row], found),
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

    def _spell(self, hypothesis: Hypothesis, waveform: Floats, nbest: int) -> Transcript:
        frame_sec = self.spec.encoder_frame_sec
        any_words = hypothesis.tokens or hypothesis.others
        levels = loudness(waveform, round(frame_sec * SAMPLE_RATE)).tobytes() if any_words else b""
        return spell(
            self.spec.tokens,
            hypothesis,
            frame_sec=frame_sec,
            duration_sec=len(waveform) / SAMPLE_RATE,
            sound=Sound(levels),
            nbest=nbest,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
