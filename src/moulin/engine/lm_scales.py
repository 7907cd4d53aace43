"""Whether the weights of a language model that a request asks for can be had."""

from __future__ import annotations

from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import LanguageModelUse
from moulin.errors import OptionsError


def check_scales(options: DecodingOptions, fusion: LanguageModelUse | None) -> None:
    """Raises OptionsError where `options` weigh a model that is not there, or the search is greedy and to stay so."""
    if options.lm_scale and fusion is None:
        raise OptionsError(
            f"Expected lm_scale 0, as there is no language model here, got {options.lm_scale:g}",
            hint="moulin serve --lm FILE; the layout ensemble and CTC heads use none",
        )
    if options.lodr_scale and (fusion is None or fusion.lodr is None):
        raise OptionsError(
            f"Expected lodr_scale 0, as there is no model to subtract here, got {options.lodr_scale:g}",
            hint="moulin serve --lm FILE --lodr FILE",
        )
    if options.lm_scale and options.method == "greedy" and options.hotwords_method == "refuse":
        raise OptionsError(
            "Expected the method modified_beam_search with a language model, got greedy",
            hint="choose the method, or let it be chosen: hotwords_method modified_beam_search",
        )
