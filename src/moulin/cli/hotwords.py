"""The flag `--hotwords` of verbs that recognise: phrases beside the server's own."""

from __future__ import annotations

from typing import Any

import typer

from moulin.decoding.hotwords import as_json, given_hotwords

HOTWORDS: Any = typer.Option(
    "--hotwords",
    metavar="FILE|WORDS",
    help="Words and phrases to expect: a file with one PHRASE or PHRASE :SCORE a line, or words with commas between.",
)
"""For `Annotated`."""


def changed_hotwords(file_or_words: str | None) -> dict[str, Any]:
    """The change of options that the flag's value asks for. Raises OptionsError."""
    return {} if file_or_words is None else {"hotwords": as_json(given_hotwords(file_or_words))}
