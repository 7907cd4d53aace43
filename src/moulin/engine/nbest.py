"""Whether the alternatives that a request asks for can be had."""

from __future__ import annotations

from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError


def check_nbest(options: DecodingOptions) -> None:
    """Raises OptionsError where `options` ask for several texts, and the search is greedy and to stay so."""
    if options.nbest > 1 and options.method == "greedy" and options.hotwords_method == "refuse":
        raise OptionsError(
            "Expected the method modified_beam_search with nbest, got greedy",
            hint="choose the method, or let nbest choose it: hotwords_method modified_beam_search",
        )
