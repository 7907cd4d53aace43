"""The searches by name. Each has a plain reference that defines it and a fast form that tests hold against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moulin.arrays import Floats, Ints
from moulin.decoding.greedy import advance_greedy, greedy_search_reference, start_greedy
from moulin.decoding.modified_beam_search import (
    advance_modified_beam_search,
    modified_beam_search_reference,
    start_modified_beam_search,
)
from moulin.decoding.network import Hypothesis, PredictionNetwork
from moulin.decoding.options import DecodingOptions, Method

ReferenceSearch = Callable[[PredictionNetwork, Floats, Ints, DecodingOptions], list[Hypothesis]]
"""(network, encoder_out float32 [N, T, joiner_dim], encoder_out_lens int64 [N], options) to N hypotheses.

Frames at and beyond an utterance's length are never looked at.
"""


class SearchState(Protocol):
    """Where a search stands in one utterance."""

    @property
    def num_frames(self) -> int:
        """Encoder frames searched so far."""

    def hypothesis(self) -> Hypothesis:
        """The best one so far."""

    def drop(self, count: int) -> None:
        """Decide for the best hypothesis and forget its first `count` tokens. The decoder's context stays."""


class HostSearchState(SearchState, Protocol):
    """Of the searches below."""

    num_frames: int


@dataclass(frozen=True, slots=True)
class Search:
    """A search that goes on as frames come. The utterances of one call all have the same options."""

    start: Callable[[PredictionNetwork, int, DecodingOptions], Sequence[HostSearchState]]
    """(network, count, options) to the states of `count` utterances of which nothing has been heard."""

    advance: Callable[[PredictionNetwork, Sequence[Any], Floats, Ints, DecodingOptions], None]
    """(network, states, encoder_out, encoder_out_lens, options), as of `ReferenceSearch`: changes the states."""

    def __call__(
        self, network: PredictionNetwork, encoder_out: Floats, encoder_out_lens: Ints, options: DecodingOptions
    ) -> list[Hypothesis]:
        """The hypotheses of whole utterances."""
        states = self.start(network, len(encoder_out), options)
        self.advance(network, states, encoder_out, encoder_out_lens, options)
        return [state.hypothesis() for state in states]


def rows_by_options(options: Sequence[DecodingOptions]) -> dict[DecodingOptions, list[int]]:
    """The rows of a batch that go into one call of a search, for each set of options that occurs."""
    rows: dict[DecodingOptions, list[int]] = {}
    for row, chosen in enumerate(options):
        rows.setdefault(chosen, []).append(row)
    return rows


SEARCHES: dict[Method, Search] = {
    "greedy": Search(start_greedy, advance_greedy),
    "modified_beam_search": Search(start_modified_beam_search, advance_modified_beam_search),
}
REFERENCE_SEARCHES: dict[Method, ReferenceSearch] = {
    "greedy": greedy_search_reference,
    "modified_beam_search": modified_beam_search_reference,
}
