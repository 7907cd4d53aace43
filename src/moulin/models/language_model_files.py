"""The operator's choice of language model: files, and what their weights are without being told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.options import option

USUAL_SCALE, USUAL_LODR_SCALE = 0.3, 0.1


@dataclass(frozen=True, slots=True)
class LanguageModelFiles:
    """The files of a language model and of a low-order one that is subtracted. Raises OptionsError."""

    help_section: ClassVar[str] = "Decoding"

    lm: Path | None = option(
        None,
        "Language model: n-grams of tokens or words in an ARPA file, plain or gzipped, or Icefall's RNN in ONNX.",
        metavar="FILE",
    )
    lodr: Path | None = option(
        None, "n-grams of tokens, usually bigrams of the training text, to subtract (LODR).", metavar="FILE"
    )

    def __post_init__(self) -> None:
        if self.lodr is not None and self.lm is None:
            raise OptionsError("Expected --lm with --lodr, which is subtracted from it, got none")


NO_FILES = LanguageModelFiles()


def with_scales(options: DecodingOptions, files: LanguageModelFiles) -> DecodingOptions:
    """`options` as the defaults of a server with `files`."""
    if files.lm is not None and options.lm_scale is None:
        options = replace(options, lm_scale=USUAL_SCALE)
    if files.lodr is not None and options.lodr_scale is None:
        options = replace(options, lodr_scale=USUAL_LODR_SCALE)
    return options
