"""The result of a search, the same for the references, the searches in numpy and the kernels on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from moulin.arrays import Doubles, Floats, Ints, Ints32


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A sequence of tokens.

    `frames[i]` is the encoder frame at which `tokens[i]` was emitted and `log_probs[i]` its log-probability there.
    `score` is the total log-probability of the path or, in beam search, of all merged paths, with the bonuses of
    hotwords.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    log_probs: tuple[float, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The result of searching up to T frames of N rows, with P places for the hypotheses of each row.

    Greedy search uses the first place alone. Ignore values beyond a count, and places whose score is -inf. Where the
    best score of a row is not finite, the encoder gave NaN or infinity.
    """

    origins: Ints32
    """[N, P]: the place, before these frames, of the hypothesis that each one extends."""
    counts: Ints32
    """[N, P]: tokens that each hypothesis gains in these frames."""
    tokens: Ints32
    """[N, P, T]"""
    frames: Ints32
    """[N, P, T]: the frame that emitted each token, counted from the first of these frames."""
    log_probs: Floats
    """[N, P, T]"""
    scores: Doubles
    """[N, P]: log-probability since the search began or was last reduced to one hypothesis (`Continuation.decided`),
    with the bonuses of hotwords; -inf for no hypothesis."""

    @classmethod
    def nothing(cls, rows: int, places: int, frames: int) -> Self:
        """A result without hypotheses, to be filled in."""
        return cls(
            np.zeros((rows, places), np.int32),
            np.zeros((rows, places), np.int32),
            np.zeros((rows, places, frames), np.int32),
            np.zeros((rows, places, frames), np.int32),
            np.zeros((rows, places, frames), np.float32),
            np.full((rows, places), -np.inf),
        )

    @classmethod
    def of(cls, hypotheses: Sequence[Hypothesis]) -> Self:
        """The result for whole utterances, one hypothesis each."""
        found = cls.nothing(len(hypotheses), 1, max((len(each.tokens) for each in hypotheses), default=0))
        for row, each in enumerate(hypotheses):
            count = len(each.tokens)
            found.counts[row, 0], found.scores[row, 0] = count, each.score
            found.tokens[row, 0, :count] = each.tokens
            found.frames[row, 0, :count] = each.frames
            found.log_probs[row, 0, :count] = each.log_probs
        return found

    def put(self, rows: Ints, part: Found) -> None:
        """Fill in `rows` [M] with the M rows of `part`, which has at most as many places and frames."""
        places, frames = part.tokens.shape[1:]
        for name in self.__slots__:
            values = getattr(part, name)
            target = getattr(self, name)
            if values.ndim == 3:
                target[rows, :places, :frames] = values
            else:
                target[rows, :places] = values

    def first(self) -> Found:
        """The hypotheses in the first places alone."""
        return Found(*(getattr(self, name)[:, :1] for name in self.__slots__))

    def best(self, context_size: int) -> Found:
        """The hypothesis of each row with the best log-probability per token, in a single place.

        The decoder's first context counts as tokens, as in Icefall and sherpa-onnx (`GetMostProbable`).
        """
        if self.scores.shape[1] == 1:
            return self
        places = (self.scores / (self.counts + context_size)).argmax(axis=1)
        rows = np.arange(len(places))
        return Found(*(getattr(self, name)[rows, places][:, None] for name in self.__slots__))

    def hypotheses(self) -> list[Hypothesis]:
        """The hypothesis in the first place of every row."""
        most = int(self.counts[:, 0].max(initial=0))
        # tolist() makes Python's numbers for all rows at once.
        each = (array[:, 0, :most].tolist() for array in (self.tokens, self.frames, self.log_probs))
        return [
            Hypothesis(tuple(tokens[:count]), tuple(frames[:count]), tuple(log_probs[:count]), score)
            for count, score, tokens, frames, log_probs in zip(
                self.counts[:, 0].tolist(), self.scores[:, 0].tolist(), *each, strict=True
            )
        ]
