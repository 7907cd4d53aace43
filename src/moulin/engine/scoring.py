"""Encoder frames to transcripts."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.arrays import Floats, Ints
from moulin.bundle.tokens import TokenTable
from moulin.decoding.found import Hypothesis
from moulin.decoding.network import PredictionNetwork
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.spelling import spell
from moulin.transcript import Transcript


class Scorer:
    """Searches the encoder's frames and spells what is found. Safe to call from several threads if `network` is."""

    def __init__(self, network: PredictionNetwork, tokens: TokenTable, *, frame_sec: float) -> None:
        self._network = network
        self._tokens = tokens
        self._frame_sec = frame_sec

    def __call__(
        self,
        encoder_out: Floats,
        encoder_out_lens: Ints,
        durations_sec: Sequence[float],
        options: Sequence[DecodingOptions],
    ) -> list[Transcript]:
        """The transcripts of encoder_out float32 [N, T', joiner_dim], each with its own `options`."""
        hypotheses = self.search(encoder_out, encoder_out_lens, options)
        return [
            spell(self._tokens, hypothesis, frame_sec=self._frame_sec, duration_sec=duration_sec)
            for hypothesis, duration_sec in zip(hypotheses, durations_sec, strict=True)
        ]

    def search(
        self, encoder_out: Floats, encoder_out_lens: Ints, options: Sequence[DecodingOptions]
    ) -> list[Hypothesis]:
        """What is found in each utterance."""
        return search(self._network, encoder_out, encoder_out_lens, RowOptions.of(options)).hypotheses()
