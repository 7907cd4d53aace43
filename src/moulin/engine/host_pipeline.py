"""Offline recognition on any `Runner`: features and searches are on the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from moulin.arrays import Floats, Ints
from moulin.bundle.spec import ModelSpec
from moulin.decoding.ctc import search_ctc
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.rescoring import LanguageModelUse
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import TAIL_PADDING_SEC, FeatureExtractor
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.pipeline import Answer
from moulin.engine.precision_error import precision_error
from moulin.engine.runner import CtcRunner, Runner
from moulin.errors import MoulinError

Search = Callable[[Floats, Ints, RowOptions], Found]
"""From the encoder's frames [N, T', channels], of which the given numbers [N] are valid, to hypotheses, the best
first."""


class _Pipeline:
    """A `Pipeline` on the host, but for the networks, which run where `runner` has them."""

    def __init__(
        self,
        spec: ModelSpec,
        runner: CtcRunner,
        search: Search,
        *,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
    ) -> None:
        self._spec, self.runner, self._search = spec, runner, search
        self.features = FeatureExtractor(
            feature_dim=spec.feature_dim,
            threads=runner.threads,
            max_frames=spec.max_frames,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
        )
        self.encode = BatchedEncoder(runner, channels=spec.frame_channels)

    def __call__(self, waveforms: Sequence[Floats], options: RowOptions, names: Sequence[str], answer: Answer) -> None:
        encoder_out, encoder_out_lens = self.encode(self.features(waveforms))
        found = self._search(encoder_out, encoder_out_lens, options).hypotheses(options.wants_others)
        answer(range(len(found)), list(map(self._checked, found, names)))

    def _checked(self, hypothesis: Hypothesis, name: str) -> Hypothesis | MoulinError:
        if math.isfinite(hypothesis.score):
            return hypothesis
        return precision_error(self._spec, f"{name}: expected numbers from {self._spec.file}")

    @property
    def num_workers(self) -> int:
        return self.runner.num_workers

    @property
    def max_utterance_sec(self) -> float:
        return self.features.max_utterance_sec

    def check(self, waveform: Floats, *, what: str) -> Floats:
        return self.features.check(waveform, what=what)

    def check_form(self, waveform: Floats, *, what: str) -> Floats:
        # On a GPU int8 rounds by the largest value in a batch: faulty samples would spoil the results of others.
        return self.features.check(waveform, what=what)

    def close(self) -> None:
        self.features.close()
        self.encode.close()


class HostPipeline(_Pipeline):
    """A transducer's `Pipeline`."""

    runner: Runner

    def __init__(
        self, spec: ModelSpec, runner: Runner, *, fusion: LanguageModelUse | None = None, **settings: float
    ) -> None:
        """`fusion` is the language model of those who weigh it; `settings` are those of `_Pipeline`."""
        searching = partial(search, runner, joiner_dim=spec.joiner_dim, fusion=fusion)
        super().__init__(spec, runner, searching, **settings)


class CtcPipeline(_Pipeline):
    """The `Pipeline` of a CTC head."""

    def __init__(self, spec: ModelSpec, runner: CtcRunner, **settings: float) -> None:
        """`settings` are those of `_Pipeline`."""
        super().__init__(spec, runner, partial(search_ctc, skipped_ids=spec.tokens.skipped_ids), **settings)
