"""The searches by name. Each has a plain reference that defines it and a fast form that tests hold against it."""

from __future__ import annotations

from moulin.decoding.greedy import greedy_search, greedy_search_reference
from moulin.decoding.modified_beam_search import modified_beam_search, modified_beam_search_reference
from moulin.decoding.network import Search
from moulin.decoding.options import Method

SEARCHES: dict[Method, Search] = {"greedy": greedy_search, "modified_beam_search": modified_beam_search}
REFERENCE_SEARCHES: dict[Method, Search] = {
    "greedy": greedy_search_reference,
    "modified_beam_search": modified_beam_search_reference,
}
