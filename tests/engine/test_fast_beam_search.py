"""Fast beam search of recognizers: who has it, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from moulin.arrays import Floats
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.transcript import Transcript
from tests.bundles import BUNDLES

FAST = DecodingOptions("fast_beam_search")


def test_what_is_refused(clips: Sequence[Floats]) -> None:
    with pytest.raises(OptionsError, match="Expected max-states of at least max-contexts, 8, got 3"):
        replace(FAST, max_contexts=8, max_states=3)
    refused = [replace(FAST, nbest=2), replace(FAST, hotwords=(Hotword("six"),)), FAST]
    with open_recognizer(DEMO_MODEL) as recognizer:
        answers = recognizer.transcribe_each([clips[0]] * 3, refused, ["clip"] * 3)
    assert isinstance(answers[2], Transcript)
    assert answers[2].text.split()[0] == "ONE"
    for answer, what in zip(answers[:2], ("nbest", "hotwords"), strict=True):
        assert f"Expected the method modified_beam_search with {what}, got fast_beam_search" in str(answer)
    with (
        open_recognizer(BUNDLES / "zipformer2-ctc-offline", EngineChoice(head="ctc")) as ctc,
        pytest.raises(OptionsError, match="for a transducer that is searched on the host"),
    ):
        ctc.transcribe(clips[:1], [FAST])


def test_streams(clips: Sequence[Floats]) -> None:
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=2) as recognizer:
        texts = []
        for options in (FAST, DecodingOptions()):
            stream = recognizer.open(StreamOptions(options))
            recognizer.accept(stream, clips[1])
            recognizer.finish(stream)
            assert recognizer.advance(stream).is_final
            texts.append(recognizer.text(stream))
            recognizer.close(stream)
    assert texts[0].split()[:2] == texts[1].split()[:2]
