"""Offline recognition on any `Runner`: features and searches are on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moulin.arrays import Floats
from moulin.bundle.spec import ModelSpec
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import TAIL_PADDING_SEC, FeatureExtractor
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.pipeline import Answer
from moulin.engine.precision_error import precision_error
from moulin.engine.runner import Runner


class HostPipeline:
    """A `Pipeline` on the host, but for the networks, which run where `runner` has them."""

    def __init__(
        self,
        spec: ModelSpec,
        runner: Runner,
        *,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
    ) -> None:
        self._spec, self.runner = spec, runner
        self.features = FeatureExtractor(
            feature_dim=spec.feature_dim,
            threads=runner.threads,
            max_frames=spec.max_frames,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
        )
        self.encode = BatchedEncoder(runner, joiner_dim=spec.joiner_dim)

    def __call__(self, waveforms: Sequence[Floats], options: RowOptions, names: Sequence[str], answer: Answer) -> None:
        encoder_out, encoder_out_lens = self.encode(self.features(waveforms))
        found = search(self.runner, encoder_out, encoder_out_lens, options).hypotheses()
        for position, (hypothesis, name) in enumerate(zip(found, names, strict=True)):
            if math.isfinite(hypothesis.score):
                answer(position, hypothesis)
            else:
                answer(position, precision_error(self._spec, f"{name}: expected numbers from {self._spec.file}"))

    @property
    def max_utterance_sec(self) -> float:
        return self.features.max_utterance_sec

    def check(self, waveform: Floats, *, what: str) -> Floats:
        return self.features.check(waveform, what=what)

    def check_form(self, waveform: Floats, *, what: str) -> Floats:
        # An encoder in int8 rounds by the largest value in its batch: faulty samples would spoil the others' results.
        return self.features.check(waveform, what=what)

    def close(self) -> None:
        self.features.close()
        self.encode.close()
