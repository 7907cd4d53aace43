"""CPU time of modified beam search with a language model, relative to the same search without.

    OMP_NUM_THREADS=1 python scripts/language-model-speed.py [--rnn]

The search alone, of a transducer of usual size (vocabulary 500, joiner 512, random weights in numpy), with trigrams of
its tokens and of words, each made of 200,000 random words; with --rnn instead with RNNs of random weights in ONNX, two
layers of 512 and three of 2,048, with states and of whole texts.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from moulin.bundle.rnn_lm import read_rnn_lm
from moulin.bundle.tokens import TokenTable
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import LanguageModelUse, Rescoring
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.onnxruntime.rnn_lm import OnnxRnnLm, OnnxTextScorer
from moulin.language_models.kneser_ney import kneser_ney
from moulin.language_models.ngram_model import NgramModel
from moulin.models.language_model import fusion_of

BEAM = DecodingOptions("modified_beam_search")
BATCHES = (1, 8, 32)
PAIRS = 9


def usual_network(rng: np.random.Generator) -> Any:
    spec = importlib.util.spec_from_file_location("hotwords_speed", Path(__file__).with_name("hotwords-speed.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.UsualNetwork(rng)


def tokens_of(rng: np.random.Generator, size: int) -> TokenTable:
    """Half of them begin words."""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    pieces: dict[str, None] = {}
    while len(pieces) < size - 3:
        piece = "".join(rng.choice(letters, rng.integers(1, 5)))
        pieces[f"▁{piece}" if len(pieces) % 2 else piece] = None
    return TokenTable(("<blk>", "<sos/eos>", "<unk>", *pieces))


def ratio(network: Any, frames: Any, fusion: LanguageModelUse, pairs: int = PAIRS) -> str:
    """The median of the ratios of pairs in turn, and of what is added."""
    lengths = np.full(len(frames), frames.shape[1])
    rows = [RowOptions.of([replace(BEAM, lm_scale=scale)] * len(frames)) for scale in (None, 0.3)]
    ratios, added = [], []
    for pair in range(pairs + 1):
        spent = []
        for options in rows:
            began = time.process_time()
            search(network, frames, lengths, options, fusion=fusion)
            spent.append(time.process_time() - began)
        if pair:  # the first warms up
            ratios.append(spent[1] / spent[0])
            added.append(1e3 * (spent[1] - spent[0]))
    return f"{statistics.median(ratios):.2f} (+{statistics.median(added):.0f} ms)"


def with_rnns(rng: np.random.Generator, network: Any) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.rnn_lm import RnnLm, export_of_texts, export_with_states

    for layers, size, batches, pairs in ((2, 512, (1, 8), 5), (3, 2048, (1,), 2)):
        model = RnnLm(network.vocab_size, embedding=size, hidden=size, layers=layers)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "lm.onnx")
            fused = Fusion(OnnxRnnLm(read_rnn_lm(export_with_states(model, file))))
            rescored = Rescoring(OnnxTextScorer(read_rnn_lm(export_of_texts(model, file))))
        for batch, (name, use) in product(batches, {"fused": fused, "rescored": rescored}.items()):
            frames = 0.8 * rng.standard_normal((batch, 200, network.joiner_dim), np.float32)
            print(f"{layers} x {size}, batch {batch}, {name}: {ratio(network, frames, use, pairs)}", flush=True)


def main() -> None:
    rng = np.random.default_rng(0)
    network = usual_network(rng)
    if "--rnn" in sys.argv:
        with_rnns(rng, network)
        return
    tokens = tokens_of(rng, network.vocab_size)
    said = [[tokens.symbols[token] for token in rng.integers(3, len(tokens), 10)] for _ in range(20_000)]
    words = ["".join(line).replace("▁", " ").split() for line in said]
    models = {"tokens": fusion_of(NgramModel.of(kneser_ney(said, 3)), tokens, Path("tokens")),
              "words": fusion_of(NgramModel.of(kneser_ney(words, 3)), tokens, Path("words"))}  # fmt: skip
    for batch in BATCHES:
        frames = 0.8 * rng.standard_normal((batch, 200, network.joiner_dim), np.float32)
        for name, fusion in models.items():
            print(f"batch {batch}, {name}: {ratio(network, frames, fusion)}", flush=True)


if __name__ == "__main__":
    main()
