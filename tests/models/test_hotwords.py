"""Which models and engines use hotwords."""

from __future__ import annotations

import pytest

from moulin.bundle.load_model import load_model
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.hotwords import hotword_graphs, uses_hotwords
from tests.bundles import BUNDLES

WORDS = (Hotword("a b"),)


@pytest.mark.parametrize(
    ("engine", "used"),
    [
        (EngineChoice("onnxruntime"), True),
        (EngineChoice("onnxruntime", device="cuda"), True),
        (EngineChoice("tensorrt", device="cuda", precision="fp16"), True),
        (EngineChoice("torch", precision="fp32"), True),
        (EngineChoice("torch", device="cuda", precision="fp32"), True),
        (EngineChoice("torch", device="cuda", precision="fp16"), False),
        (EngineChoice("onnxruntime", head="ctc"), False),
    ],
    ids=str,
)
def test_who_uses_them(engine: EngineChoice, used: bool) -> None:
    spec = load_model(BUNDLES / "zipformer2-ctc-offline", prefer_checkpoint=engine.prefers_checkpoint, head=engine.head)
    assert uses_hotwords(spec, engine) == used
    if used:
        graphs = hotword_graphs(spec, engine, WORDS, None)
        assert graphs is not None
        assert graphs.of(DecodingOptions())[0] is not None
        return
    assert hotword_graphs(spec, engine, (), DecodingOptions("modified_beam_search")) is None
    for server, options in ((WORDS, None), ((), DecodingOptions(hotwords=WORDS))):
        with pytest.raises(OptionsError, match="Expected no hotwords"):
            hotword_graphs(spec, engine, server, options)
