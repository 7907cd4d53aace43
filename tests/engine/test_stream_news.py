"""What a recognizer does by slot while streams step: news, segments closed on request, options that change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.waveform import in_16_bits
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import OptionsError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream

BEAM = StreamOptions(DecodingOptions("modified_beam_search"))


@pytest.fixture(scope="module")
def demo() -> Iterator[StreamRecognizer]:
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=8) as recognizer:
        yield recognizer
        assert recognizer.num_open == 0


def news(recognizer: StreamRecognizer, stream: Stream) -> StreamUpdate | None:
    """The news of one stream, if any."""
    _, found = recognizer.news(np.array([stream.slot]))
    assert [slot for slot, _ in found] in ([], [stream.slot])
    if not found:
        return None
    update = found[0][1]
    assert isinstance(update, StreamUpdate)
    return update


def hear(recognizer: StreamRecognizer, stream: Stream, audio: Floats) -> None:
    samples = in_16_bits(audio)
    recognizer.accept_runs(np.array([stream.slot]), samples, np.array([len(samples)]))
    while recognizer.is_ready(stream):
        recognizer.step([stream])


@pytest.mark.parametrize("options", [StreamOptions(), BEAM])
def test_there_are_news_where_words_have_changed_and_never_otherwise(
    demo: StreamRecognizer, clips: list[Floats], options: StreamOptions
) -> None:
    stream, shown, silent = demo.open(options), LiveTranscript(), 0
    assert news(demo, stream) is None
    for begin in range(0, len(clips[0]), 5120):
        before = demo.text(stream)
        hear(demo, stream, clips[0][begin : begin + 5120])
        update = news(demo, stream)
        assert update is not None or demo.text(stream) == before
        silent += update is None
        if update is not None:
            shown.apply(update)
        assert shown.text == demo.text(stream)
        assert news(demo, stream) is None
    assert silent > 3
    demo.finish(stream)
    while demo.is_ready(stream):
        demo.step([stream])
    update = news(demo, stream)
    assert update is not None
    assert update.is_final
    shown.apply(update)
    assert shown.text == demo.text(stream) != ""
    demo.close(stream)


def test_a_segment_is_closed_on_request_and_the_stream_goes_on(demo: StreamRecognizer, clips: list[Floats]) -> None:
    """At once where all audio is decoded, else after the steps that it completes; with nothing said, too."""
    stream = demo.open()
    demo.finalize(stream)
    update = news(demo, stream)
    assert update is not None
    assert (update.segments, update.endpoint) == ((), True)
    half = len(clips[0]) // 2
    hear(demo, stream, clips[0][:half])
    said = demo.text(stream)
    news(demo, stream)
    demo.finalize(stream)
    update = news(demo, stream)
    assert update is not None
    assert [(segment.text, segment.is_final, segment.ends_in_pause) for segment in update.segments] == [
        (said, True, False)
    ]
    samples = in_16_bits(clips[0][half:])
    demo.accept_runs(np.array([stream.slot]), samples, np.array([len(samples)]))
    demo.finalize(stream)
    assert news(demo, stream) is None
    while demo.is_ready(stream):
        assert all(not segment.is_final for segment in (news(demo, stream) or update).segments[1:])
        demo.step([stream])
    update = news(demo, stream)
    assert update is not None
    assert update.segments[0].is_final
    assert update.segments[0].number == 1
    assert demo.text(stream) == f"{said} {update.segments[0].text}"
    demo.close(stream)


def test_options_hold_from_the_next_step_on(demo: StreamRecognizer, clips: list[Floats]) -> None:
    """Other rules leave the segment open; another search begins with a segment of its own."""
    half, audio = len(clips[1]) // 2, clips[1]
    stream = demo.open()
    hear(demo, stream, audio[:half])
    said = demo.text(stream)
    demo.change_options(stream, StreamOptions(rules=EndpointRules(9.0, 9.0, 60.0)))
    assert demo.text(stream) == said
    news(demo, stream)
    hear(demo, stream, audio[half : half + 5120])
    assert stream.num_closed == 0
    said = demo.text(stream)
    demo.change_options(stream, BEAM)
    hear(demo, stream, audio[half + 5120 :])
    update = news(demo, stream)
    assert update is not None
    assert (update.segments[0].text, update.segments[0].is_final) == (said, True)
    alone = demo.open(BEAM)
    assert demo.text(stream).startswith(said)
    assert len(demo.text(stream)) > len(said)
    for one in (stream, alone):
        demo.close(one)


def test_options_that_the_model_cannot_fulfil_change_nothing(demo: StreamRecognizer) -> None:
    stream = demo.open()
    with pytest.raises(OptionsError):
        demo.change_options(stream, StreamOptions(DecodingOptions(blank_skip=0.9)))
    assert stream.options == StreamOptions()
    demo.close(stream)


def test_a_slot_has_no_news_of_the_stream_before(demo: StreamRecognizer, clips: list[Floats]) -> None:
    first = demo.open()
    hear(demo, first, clips[0])
    demo.change_options(first, BEAM)
    demo.finalize(first)
    demo.close(first)
    second = demo.open()
    assert second.slot == first.slot
    assert news(demo, second) is None
    hear(demo, second, clips[0])
    alone = demo.open()
    hear(demo, alone, clips[0])
    assert demo.text(second) == demo.text(alone)
    assert second.num_closed == alone.num_closed
    for stream in (second, alone):
        demo.close(stream)
