"""Which models use hotwords."""

from __future__ import annotations

import pytest

from moulin.bundle.load_model import load_model
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.models.hotwords import hotword_graphs, uses_hotwords
from tests.bundles import BUNDLES

WORDS = (Hotword("a b"),)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_transducers_use_them(checkpoint: bool) -> None:
    spec = load_model(BUNDLES / "zipformer2-ctc-offline", prefer_checkpoint=checkpoint)
    assert uses_hotwords(spec)
    graphs = hotword_graphs(spec, WORDS, None)
    assert graphs is not None
    assert graphs.server is graphs.of(DecodingOptions())[0] is not None


def test_a_ctc_head_does_not() -> None:
    spec = load_model(BUNDLES / "zipformer2-ctc-offline", head="ctc")
    assert not uses_hotwords(spec)
    assert hotword_graphs(spec, (), DecodingOptions("modified_beam_search")) is None
    for server, options in ((WORDS, None), ((), DecodingOptions(hotwords=WORDS))):
        with pytest.raises(OptionsError, match="Expected no hotwords"):
            hotword_graphs(spec, server, options)
