"""Failures by their reason, without the names of recordings."""

from __future__ import annotations

import pytest

from moulin.bulk.status import kind_of


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("/a/b.wav does not exist, expected an audio file", "… does not exist, expected an audio file"),
        ("b.wav is empty (0 bytes), expected audio (hint: record again)", "… is empty (0 bytes), expected audio"),
        ("The engine ended on s3://bucket/b.wav (SIGKILL)", "The engine ended on … (SIGKILL)"),
        ("Recognition failed: out of memory", "Recognition failed: out of memory"),
    ],
)
def test_reasons(error: str, kind: str) -> None:
    assert kind_of(error, "b.wav") == kind


def test_a_reason_is_short_and_on_one_line() -> None:
    assert len(kind_of("x" * 1000 + "\n", "a")) <= 200
