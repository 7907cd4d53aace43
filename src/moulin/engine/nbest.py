"""Whether the alternatives that a request asks for can be had."""

from __future__ import annotations

from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError


def check_nbest(options: DecodingOptions, *, gives_others: bool) -> None:
    """Raises OptionsError where `options` ask for several texts, and the search gives the best one alone or is greedy
    and to stay so."""
    if options.nbest == 1:
        return
    if not gives_others:
        raise OptionsError(
            f"Expected nbest 1, got {options.nbest}: what runs this model gives the best text alone",
            hint="ONNX Runtime, TensorRT, and PyTorch in fp32 give more; our GPU engine does not",
        )
    if options.method == "greedy" and options.hotwords_method == "refuse":
        raise OptionsError(
            "Expected the method modified_beam_search with nbest, got greedy",
            hint="choose the method, or let nbest choose it: hotwords_method modified_beam_search",
        )
