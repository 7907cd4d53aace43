"""What the searches on the host do and our GPU engine does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moulin.bundle.rnn_lm import is_rnn_lm
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles
from moulin.models.precisions import searches_on_host

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec


def needs_host_search(options: DecodingOptions | None, lm: LanguageModelFiles = NO_FILES) -> str | None:
    """Why our GPU engine is not for these options and files, a clause; None where it is."""
    usual = options or DecodingOptions()
    if is_rnn_lm(lm.lm):
        return "it has no RNN language models"
    if usual.method == "fast_beam_search":
        return "it knows no fast_beam_search"
    return None


def check_rnn_lm(spec: ModelSpec, engine: EngineChoice, lm: LanguageModelFiles) -> None:
    """Raises OptionsError for an RNN language model where `engine`, with every choice settled, searches on the card."""
    if is_rnn_lm(lm.lm) and not searches_on_host(spec, engine):
        raise OptionsError(
            f"Expected n-grams with our GPU engine, got the RNN language model {lm.lm}, which is for searches on the "
            "host",
            hint="give an ARPA file; or --engine onnxruntime, or a checkpoint in --precision fp32",
        )
