"""Which models and engines can skip blank frames (`moulin.decoding.blank_skip`)."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.no_blank_skip import no_blank_skip
from moulin.models.engine_choice import EngineChoice
from moulin.models.precisions import searches_on_host


def skips_blanks(spec: ModelSpec, engine: EngineChoice) -> bool:
    """Whether `engine`, with every choice settled, gives what the search needs to skip frames of `spec`."""
    if not searches_on_host(spec, engine):
        return spec.has_ctc_head and spec.streaming is None
    return spec.has_ctc_head and engine.kind != "tensorrt"


def check_blank_skip(spec: ModelSpec, engine: EngineChoice, options: DecodingOptions | None) -> None:
    """Raises OptionsError where `options` ask for what `spec` on `engine` cannot do, before anything is loaded."""
    if options is not None and options.blank_skip is not None and not skips_blanks(spec, engine):
        raise no_blank_skip(spec)
