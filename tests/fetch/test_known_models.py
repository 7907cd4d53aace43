"""The list of known models."""

from __future__ import annotations

from moulin.fetch.hub import HubModel
from moulin.fetch.known_models import KNOWN_MODELS
from moulin.fetch.resolve import parse_source


def test_known_models_are_well_formed() -> None:
    for model in KNOWN_MODELS:
        source = parse_source(model.name)
        assert isinstance(source, HubModel)
        assert model.page == f"https://huggingface.co/{source.repository}"
        if model.size_mb is not None and model.int8_size_mb is not None:
            assert model.int8_size_mb < model.size_mb
    assert len({model.name for model in KNOWN_MODELS}) == len(KNOWN_MODELS)
