"""Which models use hotwords, and the automata of those that do."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.bundle.spec import ModelSpec
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.engine.no_hotwords import no_hotwords


def uses_hotwords(spec: ModelSpec) -> bool:
    """Whether `spec` is searched with hotwords: every transducer is."""
    return spec.head != "ctc"


def hotword_graphs(spec: ModelSpec, server: Sequence[Hotword], options: DecodingOptions | None) -> HotwordGraphs | None:
    """The automata for `spec`, with the hotwords `server` for all requests; None where it uses none.

    Raises OptionsError where it uses none and some are asked for, where some cannot be spelt, and where `options`
    refuse them; BundleError or EngineError where the bpe.model cannot be read.
    """
    usual = options or DecodingOptions()
    if not uses_hotwords(spec):
        if server or usual.hotwords:
            raise no_hotwords(ctc=True)
        return None
    graphs = HotwordGraphs(spec.tokens.spell, server, score=usual.hotwords_score)
    graphs.of(usual)
    return graphs
