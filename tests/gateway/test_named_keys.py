"""Keys with and without names."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.errors import OptionsError
from moulin.gateway.named_keys import NamedKey, key_entries, named_keys


def test_keys_alone_and_behind_names() -> None:
    assert named_keys(["alone", "app  secret", "app newer", "a.b_c@d-1 k"]) == (
        NamedKey("key 0", b"alone"),
        NamedKey("app", b"secret"),
        NamedKey("app", b"newer"),
        NamedKey("a.b_c@d-1", b"k"),
    )


@pytest.mark.parametrize("entry", ["", "a b c", "ключ", "nobody ключ", "na/me secret", f"{'n' * 65} secret", "ab\x7f"])
def test_what_is_no_key(entry: str) -> None:
    with pytest.raises(OptionsError, match="in entry 2") as caught:
        named_keys(["first", entry])
    for part in entry.split():
        assert len(part) < 3 or part not in str(caught.value)


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# comment\n\n  one  \napp two\n")
    assert key_entries(file) == ["one", "app two"]
    file.write_text("# nothing\n")
    with pytest.raises(OptionsError, match="Expected an API key a line"):
        key_entries(file)
    with pytest.raises(OptionsError, match=r"Cannot read the API keys in .*missing: No such file"):
        key_entries(tmp_path / "missing")
