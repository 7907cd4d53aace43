"""Hotwords of recognizers: who uses them, who refuses them, and what they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import MoulinError, OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.transcript import Transcript
from tests.bundles import BUNDLES

ZERO = (Hotword("zero", 8.0),)
BEAM = DecodingOptions("modified_beam_search")


def text(transcript: Transcript | MoulinError) -> str:
    assert isinstance(transcript, Transcript)
    return transcript.text


def test_each_request_has_its_own(clips: Sequence[Floats]) -> None:
    """ZERO is heard as THREE in this recording; greedy search with hotwords is one with a beam."""
    options = [DecodingOptions(), BEAM, DecodingOptions(hotwords=ZERO), DecodingOptions(hotwords=(Hotword("six"),))]
    with open_recognizer(DEMO_MODEL) as recognizer:
        heard = [each.text for each in recognizer.transcribe([clips[0]] * 4, options)]
        alone = [recognizer.transcribe([clips[0]], [chosen])[0].text for chosen in options]
    assert heard == alone
    assert [each.split()[1] for each in heard] == ["THREE", "THREE", "ZERO", "THREE"]


def test_the_servers_own_are_for_all_and_add_to_the_requests(clips: Sequence[Floats]) -> None:
    with open_recognizer(DEMO_MODEL, hotwords=ZERO) as recognizer:
        usual, other = recognizer.transcribe([clips[0]] * 2, [BEAM, DecodingOptions(hotwords=(Hotword("three", 8.0),))])
    assert usual.text.split()[1] == "ZERO"
    assert other.text.split()[1] == "THREE"


def test_what_cannot_be_spelt_fails_alone(clips: Sequence[Floats]) -> None:
    bad = DecodingOptions(hotwords=(Hotword("café"),))
    with open_recognizer(DEMO_MODEL) as recognizer:
        first, second = recognizer.transcribe_each([clips[0]] * 2, [bad, BEAM], ["first", "second"])
    assert isinstance(first, OptionsError)
    assert "'café' cannot be spelt" in str(first)
    assert text(second)
    with pytest.raises(OptionsError, match="'café' cannot be spelt"):
        open_recognizer(DEMO_MODEL, hotwords=bad.hotwords)


@pytest.mark.parametrize("how", ["finish", "finalize", "pause", "other options"])
def test_a_phrase_that_is_left_half_said(how: str, clips: Sequence[Floats]) -> None:
    """The last FIVE is heard as the NINE of a phrase until the segment closes without the rest of it."""
    half = StreamOptions(DecodingOptions(hotwords=(Hotword("nine ghost vote", 6.0),)))
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=1, options=half) as recognizer:
        stream = recognizer.open()
        recognizer.accept(stream, clips[0])
        recognizer.advance(stream)
        assert recognizer.text(stream).endswith("SEVEN NINE")
        match how:
            case "finish":
                recognizer.finish(stream)
            case "finalize":
                recognizer.finalize(stream)
            case "pause":
                recognizer.accept(stream, np.zeros(32_000, np.float32))
            case "other options":
                recognizer.change_options(stream, StreamOptions(BEAM))
                recognizer.accept(stream, np.zeros(8_000, np.float32))
        segments = recognizer.advance(stream).segments
        assert segments[0].is_final
        assert segments[0].text.endswith("SEVEN FIVE")


def test_streams_have_their_own(clips: Sequence[Floats]) -> None:
    options = [StreamOptions(BEAM), StreamOptions(DecodingOptions(hotwords=(Hotword("nine", 8.0),)))]
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=2) as recognizer:

        def heard(chosen: Sequence[StreamOptions]) -> list[str]:
            streams = [recognizer.open(each) for each in chosen]
            for stream in streams:
                recognizer.accept(stream, clips[0])
                recognizer.finish(stream)
            while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
                recognizer.step(ready)
            texts = [recognizer.text(stream) for stream in streams]
            for stream in streams:
                recognizer.close(stream)
            return texts

        together = heard(options)
        assert together == [heard([each])[0] for each in options]
        assert together[0] != together[1]
        assert heard([options[0]]) == together[:1], "a slot keeps nothing of the stream before"
        with pytest.raises(OptionsError, match="cannot be spelt"):
            recognizer.open(StreamOptions(DecodingOptions(hotwords=(Hotword("½"),))))
        assert recognizer.num_open == 0


def test_a_ctc_head_uses_none(clips: Sequence[Floats]) -> None:
    folder, ctc = BUNDLES / "zipformer2-ctc-offline", EngineChoice(head="ctc")
    with open_recognizer(folder, ctc) as recognizer:
        [answer] = recognizer.transcribe_each([clips[0]], [DecodingOptions(hotwords=(Hotword("a"),))], ["clip"])
        assert isinstance(answer, OptionsError)
        assert "here a CTC head is decoded" in str(answer)
    with pytest.raises(OptionsError, match="CTC head"):
        open_recognizer(folder, ctc, hotwords=(Hotword("a"),))
    with (
        open_stream_recognizer(BUNDLES / "zipformer2-ctc-streaming", ctc, max_streams=1) as streams,
        pytest.raises(OptionsError, match="CTC head"),
    ):
        streams.open(StreamOptions(DecodingOptions(hotwords=(Hotword("a"),))))


def test_greedy_search_is_refused_where_that_is_chosen() -> None:
    refuse = DecodingOptions(hotwords_method="refuse")
    open_recognizer(DEMO_MODEL, options=refuse).close()
    with pytest.raises(OptionsError, match="modified_beam_search with hotwords, got greedy"):
        open_recognizer(DEMO_MODEL, options=refuse, hotwords=ZERO)


def test_a_checkpoint_in_pytorch_has_them_too(clips: Sequence[Floats]) -> None:
    folder: Path = BUNDLES / "zipformer2-offline"
    options = [BEAM, DecodingOptions(hotwords=(Hotword("i r", 10.0),))]
    texts = []
    for engine in (EngineChoice("onnxruntime"), EngineChoice("torch")):
        with open_recognizer(folder, engine) as recognizer:
            texts.append([each.text for each in recognizer.transcribe([clips[0][:20_000]] * 2, options)])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]
