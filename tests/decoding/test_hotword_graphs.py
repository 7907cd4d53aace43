"""Automata of requests: spelt, kept by their content, and bounded."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import NO_GRAPHS
from moulin.errors import OptionsError

BEAM = "modified_beam_search"


class Speller:
    """Letters by their code points, in lower case; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, phrase: str) -> tuple[int, ...]:
        self.calls += 1
        if not phrase.isalpha():
            raise OptionsError(f"The hotword {phrase!r} cannot be spelt", hint="spell it otherwise")
        return tuple(map(ord, phrase.lower()))


def options(*words: str | Hotword, score: float = 1.5, method: str = BEAM, refuse: bool = False) -> DecodingOptions:
    return DecodingOptions(
        method,  # type: ignore[arg-type]
        hotwords=tuple(word if isinstance(word, Hotword) else Hotword(word) for word in words),
        hotwords_score=score,
        hotwords_method="refuse" if refuse else "modified_beam_search",
    )


def phrases(graph: ContextGraph | None) -> dict[str, float]:
    assert graph is not None
    return {"".join(map(chr, phrase)): score for phrase, score in graph.phrases.items()}


def test_the_same_hotwords_are_built_once() -> None:
    spell = Speller()
    graphs = HotwordGraphs(spell)
    _, first = graphs.of(options("ab", "cd"))
    _, again = graphs.of(options("ab", "cd"))
    assert first is again
    assert spell.calls == 2
    assert phrases(first) == {"ab": 1.5, "cd": 1.5}
    _, other = graphs.of(options("ab", "cd", score=2.0))
    assert phrases(other) == {"ab": 2.0, "cd": 2.0}


def test_no_hotwords_are_no_graphs() -> None:
    assert HotwordGraphs(Speller()).of(options()) == NO_GRAPHS


def test_a_phrase_that_is_named_twice_has_the_higher_score() -> None:
    _, graph = HotwordGraphs(Speller()).of(options(Hotword("AB", 2.0), "ab", Hotword("Ab", 0.5)))
    assert phrases(graph) == {"ab": 2.0}


def test_a_phrase_of_the_server_and_the_request_counts_once() -> None:
    """With the higher of both scores: the request adds what is missing."""
    graphs = HotwordGraphs(Speller(), [Hotword("ab"), Hotword("cd", 3.0)], score=1.0)
    server, request = graphs.of(options("cd", "ab", "ef", score=2.0))
    assert phrases(server) == {"ab": 1.0, "cd": 3.0}
    assert phrases(request) == {"ab": 1.0, "ef": 2.0}
    server, request = graphs.of(options("cd"))
    assert server is not None
    assert request is None
    assert graphs.of(options()) == (server, None)


def test_what_cannot_be_spelt_is_refused_by_name() -> None:
    graphs = HotwordGraphs(Speller())
    with pytest.raises(OptionsError, match="'a1' cannot be spelt"):
        graphs.of(options("ab", "a1"))
    with pytest.raises(OptionsError, match=r"2 of 3 hotwords cannot be spelt .*: 'a1', 'b2'") as caught:
        graphs.of(options("a1", "ab", "b2"))
    assert caught.value.hint == "spell it otherwise"
    with pytest.raises(OptionsError, match=r"9 of 9 hotwords .*'x0', 'x1', 'x2', 'x3', 5 more"):
        HotwordGraphs(Speller(), [Hotword(f"x{number}") for number in range(9)])


def test_optional_ones_that_cannot_be_spelt_are_left_out() -> None:
    graphs = HotwordGraphs(Speller())
    hint = Hotword("a1", optional=True)
    _, request = graphs.of(DecodingOptions(hotwords=(Hotword("ab"), hint)))
    _, without = graphs.of(options("ab"))
    assert request is not None
    assert without is not None
    assert request.phrases == without.phrases
    assert graphs.of(DecodingOptions(hotwords=(hint,))) == (None, None)
    with pytest.raises(OptionsError, match="'b2' cannot be spelt"):
        graphs.of(DecodingOptions(hotwords=(hint, Hotword("b2"))))


@pytest.mark.parametrize("server", [(), (Hotword("ab"),)])
def test_greedy_search_is_refused_where_that_is_chosen(server: tuple[Hotword, ...]) -> None:
    graphs = HotwordGraphs(Speller(), server)
    words = () if server else ("ab",)
    graphs.of(options(*words, method="greedy"))
    graphs.of(options(*words, refuse=True))
    with pytest.raises(OptionsError, match="modified_beam_search with hotwords, got greedy"):
        graphs.of(options(*words, method="greedy", refuse=True))
    HotwordGraphs(Speller()).of(options(method="greedy", refuse=True))


def test_what_is_kept_is_bounded() -> None:
    """The least recently used ones go first, and a single one may be larger than the bound."""
    spell = Speller()
    single = HotwordGraphs(spell)
    single.of(options("a" * 9))
    size = single._kept_bytes
    graphs = HotwordGraphs(spell, most_bytes=3 * size)
    for letter in "abc":
        graphs.of(options(letter * 9))
    calls = spell.calls
    graphs.of(options("a" * 9))  # used again: b is the oldest
    graphs.of(options("d" * 9))
    assert spell.calls == calls + 1
    graphs.of(options("a" * 9))
    graphs.of(options("c" * 9))
    assert spell.calls == calls + 1
    graphs.of(options("b" * 9))
    assert spell.calls == calls + 2
    many = options(*("e" * number for number in range(1, 60)))
    assert size > sys.getsizeof("a" * 9) + ContextGraph.of({(97,) * 9: 1.5}).size_bytes
    assert graphs.of(many)[1] is graphs.of(many)[1]
    assert graphs._kept_bytes > 3 * size
    assert list(graphs._kept) == [(many.hotwords, 1.5)]


def test_from_many_threads() -> None:
    graphs = HotwordGraphs(Speller(), most_bytes=40_000)

    def ask(number: int) -> dict[str, float]:
        word = chr(97 + number % 20) * (1 + number % 7)
        return phrases(graphs.of(options(word))[1])

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(2000)))
    assert found == [{chr(97 + number % 20) * (1 + number % 7): 1.5} for number in range(2000)]
    assert sum(graph.size_bytes for graph in graphs._kept.values()) < graphs._kept_bytes <= 40_000


def test_phrases_that_are_left_out_take_memory_too() -> None:
    graphs = HotwordGraphs(Speller(), most_bytes=100_000)
    for number in range(50):
        hints = [Hotword(f"{number} {hint} {'x' * 80}", optional=True) for hint in range(20)]
        assert graphs.of(options(*hints)) == NO_GRAPHS
    assert 0 < len(graphs._kept) < 30
