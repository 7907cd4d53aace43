"""`HostPipeline`: where the encoder gives NaN for an utterance, only that one has an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from moulin.arrays import Floats, Ints
from moulin.bundle.load import load_bundle
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.row_options import RowOptions
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.pipeline import Answer
from moulin.engine.recognizer import Recognizer
from moulin.errors import EngineError
from moulin.transcript import Transcript
from tests.bundles import BUNDLES

SPEC = load_bundle(BUNDLES / "zipformer2-offline")


class Overflowing(OnnxRuntimeRunner):
    """Gives NaN for the longest utterance of every batch of several."""

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        encoder_out, lengths = super().encoder(x, x_lens, alone=alone)
        if len(x) > 1:
            encoder_out[lengths.argmax(), 3:] = np.nan
        return encoder_out, lengths


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_number_is_an_error_of_its_utterance(noises: list[Floats], method: Method) -> None:
    waveforms = [noises[0][:12_000], noises[0][:11_000], noises[1][:10_000]]
    options = [DecodingOptions(method)] * 3
    with Recognizer(SPEC, HostPipeline(SPEC, Overflowing(SPEC, threads=1))) as recognizer:
        wanted = [recognizer.transcribe([waveform], options[:1])[0].text for waveform in waveforms]
        broken, *others = recognizer.transcribe_each(waveforms, options, ["the first", "the second", "the third"])
        assert isinstance(broken, EngineError)
        assert broken.message.startswith(f"the first: expected numbers from {SPEC.file}, got NaN or infinity")
        for other, text in zip(others, wanted[1:], strict=True):
            assert isinstance(other, Transcript)
            assert other.text == text
        with pytest.raises(EngineError, match="waveform: expected numbers"):
            recognizer.transcribe(waveforms, options)


def test_an_answer_that_is_missing_never_moves_those_behind_it(noises: list[Floats]) -> None:
    class Forgetful(HostPipeline):
        def __call__(
            self, waveforms: Sequence[Floats], options: RowOptions, names: Sequence[str], answer: Answer
        ) -> None:
            super().__call__(waveforms, options, names, lambda at, found: answer(at[1:], found[1:]))

    with Recognizer(SPEC, Forgetful(SPEC, OnnxRuntimeRunner(SPEC, threads=1))) as recognizer, pytest.raises(KeyError):
        recognizer.transcribe([noises[0][:9000], noises[1][:8000]])
