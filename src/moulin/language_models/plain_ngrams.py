"""The language model of `moulin.language_models.ngram_model` as the ARPA form defines it, with a dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.language_models.ngrams import BEGIN, Ngrams

History = tuple[int, ...]


class PlainNgrams:
    def __init__(self, ngrams: Ngrams) -> None:
        self._order = ngrams.order
        self._known: dict[History, tuple[float, float]] = {
            tuple(spelt): (log_prob, backoff)
            for level in ngrams.levels
            for spelt, log_prob, backoff in zip(
                level.words.tolist(), level.log_probs.tolist(), level.backoffs.tolist(), strict=True
            )
        }
        words = list(ngrams.words)
        self._begin: History = (words.index(BEGIN),) if BEGIN in words else ()

    def log_prob(self, history: History, word: int) -> float:
        """Of `word` after `history`: of the longest n-gram there is, with the back-off weights of the longer ones."""
        if (*history, word) in self._known:
            return self._known[(*history, word)][0]
        backoff = self._known.get(history, (0.0, 0.0))[1]
        return backoff + self.log_prob(history[1:], word)

    def score(self, words: Sequence[int]) -> float:
        """The log-probability of `words` from the beginning of a text, without its end."""
        history, total = self._begin, 0.0
        for word in words:
            history = history[max(0, len(history) - self._order + 1) :]
            total += self.log_prob(history, word)
            history = (*history, word)
        return total
