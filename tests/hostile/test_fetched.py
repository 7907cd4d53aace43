"""Damaged archives and hub answers: a model, or one FetchError; and nothing outside the folder."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest

from moulin.errors import MoulinError
from moulin.fetch.hub import HubModel, fetch_from_hub
from moulin.fetch.resolve import fetch_model
from moulin.fetch.unpack import unpack
from tests.fetch.archives import a_file, tar_of
from tests.fetch.site import COMMIT, REPOSITORY, Site, files_of, publish, running

from .conftest import Seeds
from .mutations import mutated, mutated_json
from .outcomes import outcome

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("inside", [True, False])
def test_archives(tmp_path: Path, packed: str, seeds: Seeds, survived: dict[str, int], *, inside: bool) -> None:
    """Damage to the tar within its compression, and to the compressed bytes."""
    plain = tar_of(a_file("m/tokens.txt", b"a 0\n" * 200), a_file("m/x/encoder.onnx", bytes(3000)), mode="w")
    archive = tmp_path / "archive"
    for seed in seeds(1):
        archive.write_bytes(PACKERS[packed](mutated(plain, seed)) if inside else mutated(PACKERS[packed](plain), seed))
        into = tmp_path / f"{seed}" / "into"
        into.mkdir(parents=True)
        outcome(partial(unpack, archive, into, name="a", max_bytes=1 << 20), seed, survived, error=MoulinError)
        assert [path.name for path in into.parent.iterdir()] == ["into"]
        assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) <= 2 << 20


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    with running(Site()) as site:
        template = site.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", site.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield site


def test_answers_of_a_hub(hub: Site, tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    names = ("tokens.txt", "encoder.onnx", "decoder.onnx", "joiner.onnx")
    publish(hub, {name: name.encode() * 200 for name in names})
    asked = f"/api/models/{REPOSITORY}/revision/main"
    answer = json.loads(hub.files[asked])
    for seed in seeds(1):
        hub.files[asked] = mutated_json(answer, seed).encode("utf-8", "surrogatepass")
        cache = tmp_path / "caches" / f"{seed}"
        outcome(partial(fetch_from_hub, HubModel(REPOSITORY), cache), seed, survived, error=MoulinError)
        if cache.exists():
            assert {path.name for path in cache.iterdir()} <= {"hub"}
            for fetched in cache.glob(f"hub/{REPOSITORY}/{COMMIT[:12]}*/*"):
                assert not fetched.is_dir() or files_of(fetched).keys() <= set(names)


def test_addresses(tmp_path: Path, seeds: Seeds, survived: dict[str, int]) -> None:
    """At an address where nothing listens."""
    for seed in seeds(4):
        address = ("http://127.0.0.1:1/models/a.tar.bz2#sha256=" + "0" * 64).encode()
        head, tail = address[:18], mutated(address[18:], seed)  # the host stays
        text = (head + tail).decode("utf-8", "surrogateescape")
        if text.startswith("http://127.0.0.1:1/"):
            outcome(partial(fetch_model, text, tmp_path), seed, survived, error=MoulinError)
