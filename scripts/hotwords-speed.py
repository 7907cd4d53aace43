"""CPU time of modified beam search with 100 hotwords for each utterance, relative to the same search without.

    OMP_NUM_THREADS=1 python scripts/hotwords-speed.py

First the search alone, of a transducer of usual size (vocabulary 500, joiner 512, random weights in numpy); then the
bundled model, 30 tokens and all of them in its hotwords: the search alone, and everything from waveforms to tokens.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import Graphs
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.demo.files import DEMO_MODEL
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.evaluate.manifest import demo_clips

PHRASES = 100
BEAM = DecodingOptions("modified_beam_search")
BATCHES = (1, 8, 32)
PAIRS = 15
WORDS = (
    *("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE", "OH"),
    *("FOX", "GHOST", "VOTE", "EXIT"),
)


class UsualNetwork:
    """A prediction network of usual size that says something in every fifth frame or so."""

    context_size, skipped_ids, vocab_size, joiner_dim = 2, (0, 2), 500, 512

    def __init__(self, rng: np.random.Generator) -> None:
        self._embeddings = 0.3 * rng.standard_normal((2, self.vocab_size + 1, self.joiner_dim), np.float32)
        self._output = 0.25 * rng.standard_normal((self.joiner_dim, self.vocab_size), np.float32)
        self._bias = np.zeros(self.vocab_size, np.float32)
        self._bias[0] = 13.0

    def decoder(self, y: Any) -> Any:
        return self._embeddings[0][y[:, 0]] + self._embeddings[1][y[:, 1]]

    def joiner(self, encoder_out: Any, decoder_out: Any) -> Any:
        return np.tanh(encoder_out + decoder_out) @ self._output + self._bias


def ratio(run: Callable[[RowOptions], object], batch: int, graphs: list[Graphs]) -> float:
    """The median of the ratios of pairs in turn."""
    rows = RowOptions.of([BEAM] * batch), RowOptions.of([BEAM] * batch, graphs)
    ratios = []
    for pair in range(PAIRS + 1):
        spent = []
        for options in rows:
            began = time.process_time()
            run(options)
            spent.append(time.process_time() - began)
        if pair:  # the first warms up
            ratios.append(spent[1] / spent[0])
    return statistics.median(ratios)


def main() -> None:
    rng = np.random.default_rng(0)
    usual = UsualNetwork(rng)
    for batch in BATCHES:
        encoder_out = 0.8 * rng.standard_normal((batch, 200, usual.joiner_dim), np.float32)
        lengths = np.full(batch, 200)
        phrases = [
            {tuple(rng.integers(3, usual.vocab_size, rng.integers(2, 7)).tolist()): 1.5 for _ in range(PHRASES)}
            for _ in range(batch)
        ]
        found = ratio(
            lambda options: search(usual, encoder_out, lengths, options),  # noqa: B023
            batch,
            [(None, ContextGraph.of(one)) for one in phrases],
        )
        print(f"usual size, batch {batch}: search {found:.2f}", flush=True)

    spec = load_bundle(DEMO_MODEL)
    pipeline = HostPipeline(spec, OnnxRuntimeRunner(spec, threads=1))
    graphs, chosen = HotwordGraphs(spec.tokens.spell), random.Random(0)
    clips = [read_audio(clip.audio) for clip in demo_clips()]
    for batch in BATCHES:
        waveforms = [clips[number % len(clips)] for number in range(batch)]
        encoder_out, lengths = pipeline.encode(pipeline.features(waveforms))
        of_rows = []
        for _ in range(batch):
            phrases_of_row = [Hotword(" ".join(chosen.choices(WORDS, k=chosen.randint(2, 4)))) for _ in range(PHRASES)]
            options = DecodingOptions("modified_beam_search", hotwords=tuple(phrases_of_row))
            of_rows.append(graphs.of(options))
        names = ["clip"] * batch
        alone = ratio(
            lambda options: search(pipeline.runner, encoder_out, lengths, options),  # noqa: B023
            batch,
            of_rows,
        )
        whole = ratio(lambda options: pipeline(waveforms, options, names, lambda *_: None), batch, of_rows)  # noqa: B023
        print(f"bundled model, batch {batch}: search {alone:.2f}, whole {whole:.2f}", flush=True)


if __name__ == "__main__":
    main()
