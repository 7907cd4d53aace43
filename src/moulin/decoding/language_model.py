"""Shallow fusion: a hypothesis gains `lm_scale` times the language model's log-probability of what it says.

The language model is one of the transducer's tokens (n-grams, or a network with states of its own:
`moulin.engine.onnxruntime.rnn_lm`), or one of words, which counts a word when the next one begins. Its
weight is part of a hypothesis's score from the next frame on, as in Icefall and sherpa-onnx: the best extensions of a
frame are chosen without. Blank costs nothing, and the end of a text (`</s>`) is not counted: an utterance or segment is
no sentence. With a low-order model of tokens beside it (LODR, Icefall's `modified_beam_search_LODR`), `lodr_scale`
times that one's log-probability is taken off again, as what the transducer has learnt of its training text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Doubles, Floats, Ints
from moulin.language_models.ngram_model import NgramModel


class LanguageModel(Protocol):
    """A language model over a transducer's tokens. A state is a row of `width` int64."""

    @property
    def width(self) -> int: ...

    @property
    def computes_ahead(self) -> bool:
        """Whether `ahead` must see a state before `advance` takes it: a network answers for all tokens at once."""

    def ahead(self, states: Ints) -> Ints:
        """States [M, width] that mean the same and from which any tokens may be asked for."""

    @property
    def start(self) -> Ints:
        """The state [width] before the first token."""

    def advance(self, states: Ints, tokens: Ints) -> tuple[Doubles, Ints]:
        """The log-probabilities, float64 [M], that `tokens` [M] behind `states` [M, width] add, and the next states."""

    def open(self, states: Ints) -> Doubles:
        """What would be added if the text ended in `states` [M, width]: of a word that may still grow."""

    def closed(self, states: Ints) -> Ints:
        """The states [M, width] behind a pause, which ends a word."""


@dataclass(frozen=True)
class TokenModel:
    """n-grams of tokens."""

    ngrams: NgramModel
    words: Ints
    """[vocab_size]: the n-grams' word of each token."""

    width, computes_ahead = 1, False

    @cached_property
    def start(self) -> Ints:
        return np.array([self.ngrams.start])

    def advance(self, states: Ints, tokens: Ints) -> tuple[Doubles, Ints]:
        log_probs, following = self.ngrams.step(states[:, 0], self.words[tokens])
        return log_probs, following[:, None]

    def ahead(self, states: Ints) -> Ints:
        return states

    def open(self, states: Ints) -> Doubles:
        return np.zeros(len(states))

    def closed(self, states: Ints) -> Ints:
        return states


@dataclass(frozen=True)
class WordModel:
    """n-grams of words, which tokens spell.

    A word that may still grow is known by a hash of its bytes, which can be continued: h(xy) = h(x) B^|y| + h(y).
    """

    ngrams: NgramModel
    unknown: int
    """The n-grams' word for all words that they do not have."""
    begins: Bools
    """[vocab_size]: whether a token begins a word."""
    hashes: NDArray[np.uint64]
    """[vocab_size]: of each token's bytes, without the space before a word."""
    factors: NDArray[np.uint64]
    """[vocab_size]: B^|y| for its bytes y."""
    known_hashes: NDArray[np.uint64]
    """[W]: of the n-grams' words, ascending."""
    known: Ints
    """[W]: these words."""

    width, computes_ahead = 2, False

    @cached_property
    def start(self) -> Ints:
        return np.array([self.ngrams.start, 0])

    def advance(self, states: Ints, tokens: Ints) -> tuple[Doubles, Ints]:
        begins = self.begins[tokens]
        log_probs, following = np.zeros(len(states)), states.copy()
        if begins.any():
            log_probs[begins], following[begins] = self._completed(states[begins])
        partial = following[:, 1].view(np.uint64) * self.factors[tokens] + self.hashes[tokens]
        following[:, 1] = partial.view(np.int64)
        return log_probs, following

    def ahead(self, states: Ints) -> Ints:
        return states

    def open(self, states: Ints) -> Doubles:
        return self._completed(states)[0]

    def closed(self, states: Ints) -> Ints:
        return self._completed(states)[1]

    def _completed(self, states: Ints) -> tuple[Doubles, Ints]:
        """The log-probability of each open word, and the states behind it."""
        log_probs, following = np.zeros(len(states)), states.copy()
        some = states[:, 1] != 0
        if some.any():
            wanted = states[some, 1].view(np.uint64)
            at = np.minimum(self.known_hashes.searchsorted(wanted), len(self.known) - 1)
            words = np.where(self.known_hashes[at] == wanted, self.known[at], self.unknown)
            log_probs[some], following[some, 0] = self.ngrams.step(states[some, 0], words)
        following[:, 1] = 0
        return log_probs, following


_BASE = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def word_hash(text: bytes) -> tuple[int, int]:
    """The hash of `text` by which `WordModel` knows it, 0 for no text, and B^|text|."""
    found, factor = 0, 1
    for byte in text:
        found, factor = (found * _BASE + byte + 1) & _MASK, factor * _BASE & _MASK
    return found, factor


@dataclass(frozen=True)
class Fusion:
    """A server's language model, and the low-order one that is subtracted, if any."""

    model: LanguageModel
    lodr: TokenModel | None = None

    @cached_property
    def width(self) -> int:
        return self.model.width + (self.lodr is not None)

    @cached_property
    def start(self) -> Ints:
        """[width]"""
        return self.model.start if self.lodr is None else np.concatenate([self.model.start, self.lodr.start])

    def advance(self, states: Ints, tokens: Ints, scales: Floats, lodr_scales: Floats) -> tuple[Doubles, Ints]:
        """The gains [M] of `tokens` [M] behind `states` [M, width], and the next states; `scales` and `lodr_scales`
        [M] are those of each row."""
        width = self.model.width
        log_probs, following = self.model.advance(states[:, :width], tokens)
        gains = log_probs * scales
        if self.lodr is not None:
            taken_off, behind = self.lodr.advance(states[:, width:], tokens)
            gains -= taken_off * lodr_scales
            following = np.concatenate([following, behind], axis=1)
        return gains, following

    def ahead(self, states: Ints) -> Ints:
        """`LanguageModel.ahead` of states [M, width]."""
        width = self.model.width
        return np.concatenate([self.model.ahead(states[:, :width]), states[:, width:]], axis=1)

    def open(self, states: Ints, scales: Floats) -> Doubles:
        """The gains [M] of words that may still grow."""
        return self.model.open(states[:, : self.model.width]) * scales

    def closed(self, states: Ints) -> Ints:
        """The states [M, width] behind a pause."""
        width = self.model.width
        return np.concatenate([self.model.closed(states[:, :width]), states[:, width:]], axis=1)


class RowFusion:
    """The states of P hypotheses in each of N rows. False where no row has a language model."""

    def __init__(self, fusion: Fusion | None, scales: Floats, lodr_scales: Floats, states: Ints) -> None:
        """`scales` and `lodr_scales` [N], where 0 is without; `states` [N, P, width] is changed."""
        self._fusion, self._states = fusion, states
        self._some = fusion is not None and bool(scales.any())
        if self._some:
            self._scales = np.repeat(scales[:, None], states.shape[1], axis=1)
            self._lodr_scales = np.repeat(lodr_scales[:, None], states.shape[1], axis=1)

    def __bool__(self) -> bool:
        return self._some

    def advance(self, parents: Ints, tokens: Ints, emitted: Bools) -> Doubles:
        """Go on in the first M rows: each hypothesis is now the one in place `parents` [M, P], with one of `tokens`
        [M, P] more where that is `emitted`. Returns the gains of these tokens [M, P]."""
        assert self._fusion is not None
        states = self._states[: len(parents)]
        gains = np.zeros(emitted.shape)
        where = emitted & (self._scales[: len(parents)] > 0)
        some = where.any()
        if some and self._fusion.model.computes_ahead:
            asked = np.zeros(emitted.shape, np.bool_)
            asked[where.nonzero()[0], parents[where]] = True
            states[asked] = self._fusion.ahead(states[asked])
        row, place = np.nonzero(parents != np.arange(parents.shape[1]))  # the states of a network are large
        states[row, place] = states[row, parents[row, place]]
        if some:
            scales, lodr_scales = self._scales[: len(parents)][where], self._lodr_scales[: len(parents)][where]
            gains[where], states[where] = self._fusion.advance(states[where], tokens[where], scales, lodr_scales)
        return gains

    def open(self) -> Doubles:
        """The gains [N, P] of words that may still grow."""
        assert self._fusion is not None
        gains = np.zeros(self._scales.shape)
        where = self._scales > 0
        gains[where] = self._fusion.open(self._states[where], self._scales[where])
        return gains


def unknown_word(ngrams: NgramModel, unknown: int | None) -> int:
    """The word for those that `ngrams` do not have: `unknown` where they have such a one, else the rarest."""
    return int(ngrams.log_probs[1 : 1 + len(ngrams.words)].argmin()) if unknown is None else unknown
