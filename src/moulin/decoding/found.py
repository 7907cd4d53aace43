"""The result of a search, the same for the references, the searches in numpy and the kernels on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from moulin.arrays import Bools, Doubles, Floats, Ints, Ints32


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
    others: tuple[Hypothesis, ...] = ()
    """The other hypotheses of the beam, the best first; only where `DecodingOptions.nbest` asks for them."""


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
        """The result for whole utterances: each hypothesis in the first place, its others in the next."""
        every = [(row, place, one) for row, best in enumerate(hypotheses) for place, one in enumerate(_all(best))]
        places = max((1 + len(best.others) for best in hypotheses), default=1)
        found = cls.nothing(len(hypotheses), places, max((len(one.tokens) for *_, one in every), default=0))
        for row, place, one in every:
            count = len(one.tokens)
            found.counts[row, place], found.scores[row, place] = count, one.score
            found.tokens[row, place, :count] = one.tokens
            found.frames[row, place, :count] = one.frames
            found.log_probs[row, place, :count] = one.log_probs
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

    def best(self, context_size: int, by_score: Bools | None = None) -> Found:
        """The hypothesis of each row with the best log-probability per token, in a single place; in rows `by_score` [N]
        that with the best log-probability, whatever its length.

        The decoder's first context counts as tokens, as in Icefall and sherpa-onnx (`GetMostProbable`).
        """
        if self.scores.shape[1] == 1:
            return self
        places = self._compared(context_size, by_score).argmax(axis=1)
        rows = np.arange(len(places))
        return Found(*(getattr(self, name)[rows, places][:, None] for name in self.__slots__))

    def ranked(self, context_size: int, by_score: Bools | None = None) -> Found:
        """The hypotheses of each row, the best first, as `best` compares them."""
        if self.scores.shape[1] == 1:
            return self
        order = np.argsort(-self._compared(context_size, by_score), axis=1, kind="stable")
        rows = np.arange(len(order))[:, None]
        return Found(*(getattr(self, name)[rows, order] for name in self.__slots__))

    def _compared(self, context_size: int, by_score: Bools | None) -> Doubles:
        per_token: Doubles = self.scores / (self.counts + context_size)
        return per_token if by_score is None else np.where(by_score[:, None], self.scores, per_token)

    def hypotheses(self, with_others: Bools | None = None) -> list[Hypothesis]:
        """The hypothesis in the first place of every row; for rows `with_others` [N] those in its other places too."""
        found = self._in_place(0)
        for row in np.flatnonzero(False if with_others is None else with_others).tolist():
            one = Found(*(getattr(self, name)[row : row + 1] for name in self.__slots__))
            places = np.flatnonzero(np.isfinite(one.scores[0, 1:])) + 1
            others = [one._in_place(place)[0] for place in places.tolist()]
            found[row] = replace(found[row], others=tuple(others))
        return found

    def _in_place(self, place: int) -> list[Hypothesis]:
        """The hypotheses in one place of every row."""
        most = int(self.counts[:, place].max(initial=0))
        # tolist() makes Python's numbers for all rows at once.
        each = (array[:, place, :most].tolist() for array in (self.tokens, self.frames, self.log_probs))
        return [
            Hypothesis(tuple(tokens[:count]), tuple(frames[:count]), tuple(log_probs[:count]), score)
            for count, score, tokens, frames, log_probs in zip(
                self.counts[:, place].tolist(), self.scores[:, place].tolist(), *each, strict=True
            )
        ]


def _all(best: Hypothesis) -> tuple[Hypothesis, ...]:
    return best, *best.others
