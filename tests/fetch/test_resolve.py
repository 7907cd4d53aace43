from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from moulin.errors import MoulinError
from moulin.fetch.archive import ArchiveUrl
from moulin.fetch.hub import HubModel
from moulin.fetch.resolve import Source, fetch_model, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf://a/b", HubModel("a/b")),
        ("hf://a/b@v1.0", HubModel("a/b", "v1.0")),
        ("hf://a/b@refs%2Fpr%2F1", HubModel("a/b", "refs/pr/1")),
        ("hf://a/b/exp", HubModel("a/b", "main", PurePosixPath("exp"))),
        ("hf://a/b@v1/exp/x/", HubModel("a/b", "v1", PurePosixPath("exp/x"))),
        ("https://huggingface.co/a/b", HubModel("a/b")),
        ("https://huggingface.co/a/b/tree/v1/exp", HubModel("a/b", "v1", PurePosixPath("exp"))),
        ("https://x.org/m.tar.bz2", ArchiveUrl("https://x.org/m.tar.bz2")),
        (f"http://x.org/m.tar.bz2#sha256={'A' * 64}", ArchiveUrl("http://x.org/m.tar.bz2", "a" * 64)),
        ("models/mine", None),
        ("a/b", None),
    ],
)
def test_what_people_write(text: str, source: Source | None) -> None:
    assert parse_source(text) == source
    assert parse_source(str(Path(text))) == source


def test_a_revision() -> None:
    assert parse_source("hf://a/b/exp", "v2") == HubModel("a/b", "v2", PurePosixPath("exp"))
    known = parse_source("zipformer-en", "main")
    assert known == HubModel("k2-fsa/sherpa-onnx-zipformer-gigaspeech-2023-12-12")


@pytest.mark.parametrize(
    ("text", "revision", "message"),
    [
        ("hf://a", None, "Expected hf://owner/name"),
        ("hf://a/b@", None, "Expected hf://owner/name"),
        ("hf://a/b@v1", "v2", "Expected one revision, got v1 and v2"),
        ("https://x.org/m.tar.bz2", "v2", "--revision is for models on the Hugging Face hub"),
        ("https://x.org/m.zip", None, "Expected the address of a .tar.bz2"),
        ("a/b", None, r"got 'a/b' \(hint: hf://a/b\?\)"),
        ("nonsense", None, "got 'nonsense' .hint: known names are zipformer-en, "),
        ("ftp://x.org/m.tar.bz2", None, "or an address .https"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, revision: str | None, message: str) -> None:
    with pytest.raises(MoulinError, match=message):
        fetch_model(text, tmp_path, revision=revision)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.touch()
    with pytest.raises(MoulinError, match=r"Cannot keep http.* in .*cache: .*XDG_CACHE_HOME"):
        fetch_model("http://127.0.0.1:9/m.tar.bz2", cache)


def test_nothing_heavy_is_imported_before_the_hub_is_asked() -> None:
    code = "import sys, moulin.cli, moulin.fetch.resolve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"huggingface_hub", "numpy", "onnx", "torch", "rich"} & set(loaded)
