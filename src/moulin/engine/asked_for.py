"""What a request asks of a recognizer beyond the plain search, and whether it can be had."""

from __future__ import annotations

from dataclasses import dataclass

from moulin.bundle.spec import ModelSpec
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import LanguageModelUse
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs
from moulin.engine.blank_skip import check_blank_skip
from moulin.engine.lm_scales import check_scales
from moulin.engine.nbest import check_nbest
from moulin.engine.no_hotwords import no_hotwords
from moulin.errors import OptionsError


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model's search can do beyond the plain search."""

    hotwords: HotwordGraphs | None = None
    """None where the search uses none."""
    fast_beam_search: bool = False
    """Whether it has that search."""
    fusion: LanguageModelUse | None = None
    """The language model that its search uses, if any."""


def graphs_asked_for(spec: ModelSpec, options: DecodingOptions, can: Abilities) -> Graphs:
    """The automata of a row's hotwords. Raises OptionsError for options that the model cannot fulfil."""
    check_blank_skip(spec, options)
    if options.method == "fast_beam_search":
        check_fast_beam_search(spec, options, can)
    check_nbest(options)
    check_scales(options, can.fusion)
    if can.hotwords is not None:
        graphs = can.hotwords.of(options)
        if options.method == "fast_beam_search" and graphs != NO_GRAPHS:
            raise _no_bias("hotwords")
        return graphs
    if options.hotwords:
        raise no_hotwords(ctc=spec.head == "ctc")
    return NO_GRAPHS


def check_fast_beam_search(spec: ModelSpec, options: DecodingOptions, can: Abilities) -> None:
    """Raises OptionsError where that search cannot be had, or not with the other options."""
    if spec.head == "ctc" or not can.fast_beam_search:
        raise OptionsError(
            "Expected the method greedy or modified_beam_search, got fast_beam_search, which is for a transducer that "
            "is searched on the host",
            hint="ONNX Runtime, TensorRT, and PyTorch in fp32 have it; our GPU engine and CTC heads do not",
        )
    check_no_bias(options)


def check_no_bias(options: DecodingOptions) -> None:
    """Raises OptionsError where fast_beam_search is asked for together with what that search has not."""
    if options.method != "fast_beam_search":
        return
    if options.nbest > 1:
        raise _no_bias("nbest")
    if options.lm_scale:
        raise _no_bias("a language model")


def _no_bias(what: str) -> OptionsError:
    return OptionsError(
        f"Expected the method modified_beam_search with {what}, got fast_beam_search, which has none",
        hint="leave out the method: modified_beam_search is the better of the two",
    )
