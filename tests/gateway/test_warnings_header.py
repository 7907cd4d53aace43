"""Warnings in a header: ASCII, bounded, readable by programs."""

from __future__ import annotations

import json

from moulin.gateway.warnings_header import HEADER, warnings_header


def test_sentences_of_any_letters_in_ascii() -> None:
    said = ["the file “a”, of 3 s; is cut\r\nX-Other: 1", "another"]
    (header,) = warnings_header(said).items()
    assert header[0] == HEADER
    assert header[1].isascii()
    assert header[1].isprintable()
    assert json.loads(header[1]) == said


def test_no_more_than_proxies_take() -> None:
    said = [f"channel {number} is inverted " + "x" * 100 for number in range(100)]
    value = warnings_header(said)[HEADER]
    assert len(value) <= 4096
    assert json.loads(value) == said[: len(json.loads(value))] != []
    assert warnings_header(["x" * 5000]) == {}
    assert warnings_header([]) == {}
