"""API keys and their names, as files and variables hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moulin.errors import OptionsError

SECRET_PREFIX = "ek_"
"""Short-lived keys begin with it, as OpenAI's do (`client_secrets`)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key. Several may have one name: an old one and the one that takes its place."""

    name: str
    key: bytes


def named_keys(entries: Iterable[str]) -> tuple[NamedKey, ...]:
    """The keys of entries `KEY` or `NAME KEY`; one without a name is called by its number, `key 0`.

    Raises OptionsError, whose message holds no key.
    """
    return tuple(_named(number, entry) for number, entry in enumerate(entries))


def _named(number: int, entry: str) -> NamedKey:
    name, key = f"key {number}", entry
    if len(parts := entry.split()) == 2:
        name, key = parts
        if not _NAME.fullmatch(name):
            raise OptionsError(
                "Expected names of API keys of up to 64 letters, digits and _.@-, got another one in entry "
                f"{number + 1}"
            )
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise OptionsError(
            "Expected API keys of printable ASCII without spaces, each alone or behind a name, got other characters "
            f"in entry {number + 1}"
        )
    if key.startswith(SECRET_PREFIX):
        raise OptionsError(
            f"Expected API keys that begin otherwise than short-lived ones, got one with {SECRET_PREFIX} in entry "
            f"{number + 1}"
        )
    return NamedKey(name, key.encode())


def key_entries(file: Path) -> list[str]:
    """The entries of a file of keys, one a line; `#` begins a comment line. Raises OptionsError."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionsError(f"Cannot read the API keys in {file}: {reason}") from None
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise OptionsError(f"Expected an API key a line in {file}, got none")
    return entries
