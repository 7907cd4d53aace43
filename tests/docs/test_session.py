"""Pictures of a first session: small, and each is shown. `make release` looks whether they are as it is now."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted((DOCS / "session").iterdir())


def test_each_is_shown_with_words_for_whoever_does_not_see_it() -> None:
    shown = re.findall(r"!\[([^\]]+)\]\((session/[^)]+)\)", (DOCS / "first-session.md").read_text())
    assert sorted(path for _, path in shown) == [str(picture.relative_to(DOCS)) for picture in PICTURES]


def test_they_are_small_and_load_nothing() -> None:
    assert sum(picture.stat().st_size for picture in PICTURES) < 400_000
    for picture in PICTURES:
        content = picture.read_bytes()
        if picture.suffix == ".svg":
            assert ElementTree.fromstring(content).tag.endswith("svg")
            assert b"url(http" not in content
        else:
            assert content[:4] + content[8:12] == b"RIFFWEBP"
