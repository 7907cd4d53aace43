"""CTC prefix beam search: the most probable token sequence, whose probability is the sum over all of its alignments.

For each prefix the probabilities of its paths that end in blank and of those that end in its last token are kept apart
(Hannun et al. 2014, arXiv 1408.2873); the `beam` most probable prefixes go on. With a beam that no prefix falls out of
the score is the sum over all paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from moulin.arrays import Floats


@dataclass(frozen=True, slots=True)
class Prefix:
    """A sequence of tokens, and what the last call of `PrefixBeam.advanced` added to it."""

    key: int
    """A hash of all of its tokens, by which prefixes are compared."""
    last: int
    """Its last token, 0 for none."""
    in_blank: float
    """Log-probability of its paths that end in blank, or have no frames."""
    in_token: float
    """Log-probability of its paths that end in its last token."""
    best: float
    """Log-probability of the path by which its tokens have their frames: about its best one."""
    origin: int
    """Its place, or that of the prefix that it extends, before these frames."""
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """Log-probability of all of its paths."""
        return _sum(self.in_blank, self.in_token)


_START = Prefix(0, 0, 0.0, -math.inf, 0.0, 0)


@dataclass(frozen=True, slots=True)
class PrefixBeam:
    """The prefixes of one search, the most probable first."""

    prefixes: tuple[Prefix, ...] = (_START,)

    def decided(self, place: int) -> Self:
        """Only the prefix in `place`, its score set to 0."""
        kept, score = self.prefixes[place], self.prefixes[place].score
        at_zero = replace(kept, in_blank=kept.in_blank - score, in_token=kept.in_token - score, best=kept.best - score)
        return replace(self, prefixes=(at_zero,))

    def advanced(self, log_probs: Floats, beam: int, skipped_ids: tuple[int, ...]) -> Self:
        """The prefixes after log_probs [T, vocab_size]. Tokens of `skipped_ids` other than blank are part of a prefix,
        but not of what it gains."""
        prefixes = [
            replace(prefix, origin=place, tokens=(), frames=(), log_probs=())
            for place, prefix in enumerate(self.prefixes[:beam])
        ]
        if np.isnan(log_probs).any():
            return replace(self, prefixes=())
        for frame, of_frame in enumerate(log_probs):
            prefixes = _step(prefixes, of_frame, frame, beam, skipped_ids)
        return replace(self, prefixes=tuple(prefixes))


def _step(
    prefixes: list[Prefix], log_probs: Floats, frame: int, beam: int, skipped_ids: tuple[int, ...]
) -> list[Prefix]:
    """The prefixes after one more frame, log_probs [vocab_size]."""
    stay: dict[int, Prefix] = {}
    blank = float(log_probs[0])
    for prefix in prefixes:
        again = float(log_probs[prefix.last]) if prefix.last else -math.inf
        stay[prefix.key] = replace(
            prefix,
            in_blank=prefix.score + blank,
            in_token=prefix.in_token + again,
            best=prefix.best + max(blank, again),
        )
    grown: dict[int, Prefix] = {}
    tokens = _candidates(prefixes, log_probs, beam)
    for prefix in prefixes:
        for token in tokens:
            log_prob = float(log_probs[token])
            # Its last token again is another one only after blank.
            reached = (prefix.in_blank if token == prefix.last else prefix.score) + log_prob
            if reached == -math.inf:
                continue
            key = hash((prefix.key, token))
            there = stay.get(key)
            best = (min(prefix.best, prefix.in_blank) if token == prefix.last else prefix.best) + log_prob
            if there is not None and there.best >= best:
                stay[key] = replace(there, in_token=_sum(there.in_token, reached))
                continue
            new = Prefix(
                key, token, -math.inf, reached, best, prefix.origin, prefix.tokens, prefix.frames, prefix.log_probs
            )
            if token not in skipped_ids:
                new = replace(
                    new,
                    tokens=(*prefix.tokens, token),
                    frames=(*prefix.frames, frame),
                    log_probs=(*prefix.log_probs, log_prob),
                )
            if there is None:
                grown[key] = new
            else:  # the same tokens, said more probably now
                stay[key] = replace(new, in_blank=there.in_blank, in_token=_sum(there.in_token, reached))
    return sorted((*stay.values(), *grown.values()), key=lambda prefix: -prefix.score)[:beam]


def _candidates(prefixes: list[Prefix], log_probs: Floats, beam: int) -> list[int]:
    """The tokens that can lead to one of the `beam` best prefixes, without blank: of the extensions of one prefix only
    as many survive, of which its own last token may be ranked too high; and the last tokens of all prefixes, whose
    shorter forms may grow into them."""
    wanted = min(beam + 1, len(log_probs) - 1)
    best = np.argpartition(-log_probs[1:], wanted - 1)[:wanted] + 1 if wanted else np.zeros(0, np.int64)
    return sorted({*best.tolist(), *(prefix.last for prefix in prefixes if prefix.last)})


def _sum(one: float, other: float) -> float:
    """log(exp(one) + exp(other))"""
    larger, smaller = (one, other) if one >= other else (other, one)
    return larger if smaller == -math.inf else larger + math.log1p(math.exp(smaller - larger))
