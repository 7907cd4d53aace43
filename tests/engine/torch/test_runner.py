"""Whole utterances through a checkpoint's modules give the words of its ONNX export."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, OnnxModelSpec
from moulin.decoding.options import DecodingOptions, Method
from moulin.errors import BundleError, OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES, OFFLINE
from tests.engine.torch.checkpoints import METHODS, audios, checkpoint


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bundle", OFFLINE)
def test_whole_utterances_say_what_icefalls_export_says(bundle: str, method: Method) -> None:
    options = DecodingOptions(method)
    with (
        open_recognizer(checkpoint(bundle), options=options) as ours,
        open_recognizer(BUNDLES / bundle, options=options) as onnx,
    ):
        assert isinstance(ours.spec, CheckpointSpec)
        assert isinstance(onnx.spec, OnnxModelSpec)
        said = [transcript.text for transcript in ours.transcribe(audios())]
        assert said == [transcript.text for transcript in onnx.transcribe(audios())]
        assert any(said)


def test_what_a_checkpoint_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot stream"):
        open_stream_recognizer(checkpoint("zipformer2-offline"))
    with pytest.raises(OptionsError, match="Expected a precision of fp32"):
        open_recognizer(checkpoint("conformer-offline"), EngineChoice(precision="int8"))
    (tmp_path / "epoch-1.pt").write_bytes(checkpoint("lstm-streaming").read_bytes())
    with pytest.raises(BundleError, match=r"has no tokens\.txt"):
        load_model(tmp_path)
    with pytest.raises(OptionsError, match="at least 1 of streams"):
        open_stream_recognizer(checkpoint("lstm-streaming"), max_streams=0)
    with pytest.raises(OptionsError, match="Expected threads of at least 1, got 0"):
        open_recognizer(checkpoint("conformer-offline"), EngineChoice(threads=0))
