from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from .archives import PATH, model_members, tar_of
from .site import Site, running


@pytest.fixture
def site() -> Iterator[Site]:
    with running(Site()) as serving:
        yield serving


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """`site` as the hub of this process, which has no token."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", site.url)
    template = site.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return site


@pytest.fixture(scope="module")
def content() -> bytes:
    return tar_of(*model_members())


@pytest.fixture
def url(site: Site, content: bytes) -> str:
    site.files[PATH] = content
    return site.url + PATH
