"""Options of all verbs that read a model, beside its path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from moulin.bundle.checkpoint_choice import CheckpointChoice
from moulin.cli.recipe_options import RecipeOptions
from moulin.options import held, option


def language_option() -> Any:
    """A field for the language, in this dataclass and others."""
    return option(
        None, "Which one, where a model's files are there for several languages (de_encoder.onnx, or a folder de)."
    )


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The choice among a model's files, and facts that they do not tell."""

    help_section: ClassVar[str] = "Model"

    checkpoint: CheckpointChoice = held(CheckpointChoice)
    tokens: Path | None = option(
        None,
        "A checkpoint's tokens.txt.",
        usual="the one beside it, or the only ../data/lang*/tokens.txt",
    )
    recipe: RecipeOptions = held(RecipeOptions)
    language: str | None = language_option()


NOTHING_SAID = ModelOptions()
