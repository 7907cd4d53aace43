"""Sentences about faults that pydantic finds in what a client sent."""

from __future__ import annotations

from pydantic_core import ErrorDetails

from moulin.quoting import cut, quoted

_KINDS = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "model": "an object",
    "none": "null",
}


def sentence_about(name: str, error: ErrorDetails) -> str:
    """A sentence about the field `name`: what was expected, and what came."""
    kind, about, got = error["type"], error.get("ctx", {}), quoted(error["input"])
    if kind == "missing":
        return f"Expected a field {quoted(name)}, got none"
    if kind in ("literal_error", "enum"):
        return f"Expected {name} to be {about['expected']}, got {got}"
    if kind == "union_tag_invalid":
        return f"Expected {name} to have a type of {about['expected_tags']}, got {quoted(about['tag'])}"
    if kind == "union_tag_not_found":
        return f"Expected {name} to have a type, got {got}"
    for bound, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if bound in about:
            return f"Expected {name} to be {words} {about[bound]:,g}, got {got}"
    for bound, words in (("max_length", "at most"), ("min_length", "at least")):
        if bound in about:
            counted = "characters" if kind.startswith("string") else "entries"
            return f"Expected {name} to have {words} {about[bound]:,} {counted}, got {got}"
    wanted = _KINDS.get(kind.split("_")[0])
    if wanted is not None:
        return f"Expected {name} to be {wanted}, got {got}"
    return f"Expected another {name} ({cut(error['msg'], 200)}), got {got}"
