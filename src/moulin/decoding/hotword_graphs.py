"""From hotwords to the automata of a row: spelt by the model's vocabulary, and kept for the next request with them."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import Graphs
from moulin.errors import OptionsError
from moulin.quoting import listed, quoted

MOST_BYTES = 32 << 20
"""The limit on all automata of requests that are kept."""

_NAMED = 4

_HOTWORD_BYTES = 100  # without its phrase

Spell = Callable[[str], tuple[int, ...]]
"""From a phrase to its tokens; raises OptionsError where the vocabulary cannot spell it."""


class HotwordGraphs:
    """The automata of a model's server and of its requests. Safe to call from several threads."""

    def __init__(
        self, spell: Spell, server: Sequence[Hotword] = (), *, score: float = 1.5, most_bytes: int = MOST_BYTES
    ) -> None:
        """`server` are hotwords of all requests, whose usual score is `score`. Raises OptionsError where some cannot be
        spelt."""
        self._spell, self._most_bytes = spell, most_bytes
        self._kept: OrderedDict[tuple[tuple[Hotword, ...], float], ContextGraph] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._server: ContextGraph | None = None
        if server:
            self._server = self._built(server, score)

    @property
    def server(self) -> ContextGraph | None:
        """The automaton of the server's own hotwords, the first of all rows' `Graphs`."""
        return self._server

    def of(self, options: DecodingOptions) -> Graphs:
        """The automata of a row with `options`. Raises OptionsError where a hotword cannot be spelt, and where greedy
        search is asked for and hotwords refuse it."""
        request = self._of_request(options)
        if (self._server or request) and options.method == "greedy" and options.hotwords_method == "refuse":
            raise OptionsError(
                "Expected the method modified_beam_search with hotwords, got greedy",
                hint="choose the method, or let hotwords choose it: hotwords_method modified_beam_search",
            )
        return self._server, request

    def _of_request(self, options: DecodingOptions) -> ContextGraph | None:
        if not options.hotwords:
            return None
        key = options.hotwords, options.hotwords_score
        with self._lock:
            graph = self._kept.get(key)
            if graph is not None:
                self._kept.move_to_end(key)
        if graph is None:
            graph = self._built(options.hotwords, options.hotwords_score)
            self._keep(key, graph)
        return graph if graph.phrases else None

    def _keep(self, key: tuple[tuple[Hotword, ...], float], graph: ContextGraph) -> None:
        with self._lock:
            if key in self._kept:  # another thread was first
                return
            self._kept[key] = graph
            self._kept_bytes += _size_bytes(key[0], graph)
            while self._kept_bytes > self._most_bytes and len(self._kept) > 1:
                (hotwords, _), oldest = self._kept.popitem(last=False)
                self._kept_bytes -= _size_bytes(hotwords, oldest)

    def _built(self, hotwords: Sequence[Hotword], score: float) -> ContextGraph:
        phrases: dict[tuple[int, ...], float] = {}
        faults: list[OptionsError] = []
        wrong: list[str] = []
        for one in hotwords:
            try:
                tokens = self._spell(one.phrase)
            except OptionsError as error:
                if not one.optional:
                    faults.append(error)
                    wrong.append(one.phrase)
                continue
            phrases[tokens] = max(score if one.score is None else one.score, phrases.get(tokens, 0.0))
        if len(faults) == 1:
            raise faults[0]
        if faults:
            raise OptionsError(
                f"{len(faults):,} of {len(hotwords):,} hotwords cannot be spelt in the model's vocabulary: "
                f"{listed(map(quoted, wrong), _NAMED)}",
                hint=faults[0].hint,
            )
        return ContextGraph.of(self._beyond_the_server(phrases))

    def _beyond_the_server(self, phrases: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
        """`phrases` of a request, without what the server's own list gives them already: a phrase in both counts once,
        with the higher score."""
        if self._server is None:
            return phrases
        rest = {tokens: score - self._server.phrases.get(tokens, 0.0) for tokens, score in phrases.items()}
        return {tokens: score for tokens, score in rest.items() if score > 0}


def _size_bytes(hotwords: Sequence[Hotword], graph: ContextGraph) -> int:
    """About what is kept of a list: also of phrases that no token spells, which the graph lacks."""
    return graph.size_bytes + sum(_HOTWORD_BYTES + sys.getsizeof(one.phrase) for one in hotwords)
