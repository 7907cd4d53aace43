"""JSON from clients and files: read with bounds, and refused where its meaning would be a guess.

Beside what is not JSON these are refused: more bytes or levels than allowed, `NaN` and `Infinity`, numbers that no
float holds, integers of more than 1,000 digits, the same name twice in one object, and lone surrogates (`\\ud800`),
which no UTF-8 can send on.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from moulin.quoting import cut, quoted

MOST_DEPTH = 32
"""Levels of objects and arrays; no message of any protocol here has more than eight."""

_MOST_DIGITS = 1000


class JsonError(ValueError):
    """Text is not JSON, or not of the allowed kind. The message completes a sentence: `The options are not JSON: …`."""


def read_json(text: str | bytes, *, most_bytes: int, most_depth: int = MOST_DEPTH) -> Any:
    """The value of the JSON `text`, UTF-8 where it is bytes. Raises JsonError."""
    if len(text) > most_bytes:
        raise JsonError(f"expected at most {most_bytes:,} bytes, got {len(text):,}")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = _DECODER.decode(text)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"it is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise JsonError(_too_deep(most_depth)) from None
    except ValueError as error:
        raise JsonError(cut(str(error), 200)) from None
    _check(value, most_depth)
    return value


def _check(value: object, most_depth: int) -> None:
    """Raise JsonError for levels beyond `most_depth` and for lone surrogates."""
    level: list[object] = [value]
    for _ in range(most_depth):
        inner: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return
        level = inner
    if any(isinstance(item, dict | list) for item in level):
        raise JsonError(_too_deep(most_depth))
    for item in level:
        if isinstance(item, str):
            _check_text(item)


def _too_deep(most_depth: int) -> str:
    return f"it is nested more than {most_depth} levels deep"


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise JsonError(f"it has half of a surrogate pair, {quoted(text[error.start])}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise JsonError(f"it names {quoted(twice)} twice")
    return fields


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise JsonError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise JsonError(f"it has a number that is too large, {cut(digits, 40)}")
    return value


def _constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)
