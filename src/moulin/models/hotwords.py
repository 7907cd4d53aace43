"""Which models and engines use hotwords, and the automata of those that do."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.bundle.spec import ModelSpec
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.engine.no_hotwords import no_hotwords
from moulin.models.engine_choice import EngineChoice
from moulin.models.precisions import searches_on_host


def uses_hotwords(spec: ModelSpec, engine: EngineChoice) -> bool:
    """Whether `engine`, with every choice settled, searches `spec` on the host, with hotwords."""
    return searches_on_host(spec, engine) and spec.head != "ctc"


def hotword_graphs(
    spec: ModelSpec, engine: EngineChoice, server: Sequence[Hotword], options: DecodingOptions | None
) -> HotwordGraphs | None:
    """The automata for `spec` on `engine`, with the hotwords `server` for all requests; None where it uses none.

    Raises OptionsError where it uses none and some are asked for, where some cannot be spelt, and where `options`
    refuse them; BundleError or EngineError where the bpe.model cannot be read.
    """
    usual = options or DecodingOptions()
    if not uses_hotwords(spec, engine):
        if server or usual.hotwords:
            raise no_hotwords(ctc=spec.head == "ctc")
        return None
    graphs = HotwordGraphs(spec.tokens.spell, server, score=usual.hotwords_score)
    graphs.of(usual)
    return graphs
