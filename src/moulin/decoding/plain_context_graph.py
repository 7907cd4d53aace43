"""The automaton of `moulin.decoding.context_graph` as it is defined, with tuples of tokens as states."""

from __future__ import annotations

from collections.abc import Mapping

State = tuple[int, ...]


class PlainContextGraph:
    """Bonuses for the tokens of `phrases`."""

    def __init__(self, phrases: Mapping[tuple[int, ...], float]) -> None:
        """`phrases` have the bonus for each of their tokens."""
        self._phrases = phrases
        self._begun = {phrase[:length] for phrase in phrases for length in range(len(phrase) + 1)} | {()}

    def held(self, state: State) -> float:
        """The bonus of a phrase that has begun: for each token the highest of the phrases that begin like that."""
        return sum(
            max(score for phrase, score in self._phrases.items() if phrase[:length] == state[:length])
            for length in range(1, len(state) + 1)
        )

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """The bonus of `token` for a hypothesis in `state`, and its next state."""
        suffixes = [(*state, token)[begin:] for begin in range(len(state) + 2)]
        arrived = next(suffix for suffix in suffixes if suffix in self._begun)
        complete = next(
            (suffix for suffix in suffixes if suffix in self._phrases and len(suffix) <= len(arrived)), None
        )
        if complete is not None:
            return self.held(complete) - self.held(state), ()
        return self.held(arrived) - self.held(state), arrived
