"""Bigrams as an FST with back-off arcs in OpenFst's binary form, as Icefall's scripts make them for LODR."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

from moulin.language_models.ngrams import BEGIN, END, Ngrams

_Arc = tuple[int, int, float, int]


def write_bigram_fst(ngrams: Ngrams, symbols: Sequence[str], file: Path) -> Path:
    """State 0 is the text's beginning, 1 that of no history, then one a word; labels are positions in `symbols`, and
    their number is the label of back-off. Weights are costs; the end of a text is a final weight."""
    begin, end = (ngrams.words.index(word) for word in (BEGIN, END))
    labels = {number: symbols.index(word) for number, word in enumerate(ngrams.words) if word in symbols}
    states = {begin: 0, **{number: 2 + at for at, number in enumerate(labels)}}
    arcs: list[list[_Arc]] = [[] for _ in range(2 + len(labels))]
    finals = [math.inf] * len(arcs)
    unigrams, bigrams = ngrams.levels
    for number, label in labels.items():
        arcs[1].append((label, label, -float(unigrams.log_probs[number]), states[number]))
    for (history, word), log_prob in zip(bigrams.words.tolist(), bigrams.log_probs.tolist(), strict=True):
        if word == end:
            finals[states[history]] = -log_prob
        else:
            arcs[states[history]].append((labels[word], labels[word], -log_prob, states[word]))
    for number, state in states.items():
        arcs[state].append((len(symbols), 0, -float(unigrams.backoffs[number]), 1))
    data = struct.pack("<i", 2125659606) + _text("vector") + _text("standard")
    data += struct.pack("<iiQqqq", 2, 0, 3, 0, len(arcs), sum(map(len, arcs)))
    for final, of_state in zip(finals, arcs, strict=True):
        data += struct.pack("<fq", final, len(of_state))
        data += b"".join(struct.pack("<iifi", *arc) for arc in sorted(of_state))
    file.write_bytes(data)
    return file


def _text(text: str) -> bytes:
    return struct.pack("<i", len(text)) + text.encode()
