"""What a request asks of a recognizer beyond the plain search, and whether it can be had."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs
from moulin.engine.no_blank_skip import no_blank_skip
from moulin.engine.no_hotwords import no_hotwords


def graphs_asked_for(
    spec: ModelSpec, options: DecodingOptions, *, skips_blanks: bool, hotwords: HotwordGraphs | None
) -> Graphs:
    """The automata of a row's hotwords. Raises OptionsError for options that the model cannot fulfil; `hotwords` is
    None where the search uses none."""
    if options.blank_skip is not None and not skips_blanks:
        raise no_blank_skip(spec)
    if hotwords is not None:
        return hotwords.of(options)
    if options.hotwords:
        raise no_hotwords(ctc=spec.head == "ctc")
    return NO_GRAPHS
