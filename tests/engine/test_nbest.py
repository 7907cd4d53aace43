"""Alternatives of recordings and of streams' segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from moulin.arrays import Floats
from moulin.bundle.tokens import TokenTable
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.engine.spelling import spell
from moulin.errors import OptionsError
from moulin.live_transcript import LiveTranscript
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.transcript import Alternative
from tests.bundles import BUNDLES

BEAM = DecodingOptions("modified_beam_search")


def test_recordings(clips: Sequence[Floats]) -> None:
    options = [BEAM, DecodingOptions(nbest=4), DecodingOptions(), DecodingOptions("modified_beam_search", nbest=10)]
    with open_recognizer(DEMO_MODEL) as recognizer:
        plain, four, greedy, ten = recognizer.transcribe([clips[0]] * 4, options)
        [alone] = recognizer.transcribe(clips[:1], options[3:])
    assert plain.alternatives == greedy.alternatives == ()
    assert (four.text, four.words) == (plain.text, plain.words)
    assert [len(each.alternatives) for each in (four, ten)] == [4, 10]
    assert ten == alone
    for each in (four, ten):
        assert each.alternatives[0] == Alternative(each.text, each.words, each.alternatives[0].score)
        texts = [one.text for one in each.alternatives]
        assert len(set(texts)) == len(texts)
        for one in each.alternatives:
            assert one.text.split() == [word.word for word in one.words]
            assert one.score < 0


def test_texts_are_different() -> None:
    """Of two ways to spell a text the better one counts."""
    tokens = TokenTable(("<blk>", "▁A", "B", "▁AB", "▁C"))
    first, *others = [
        Hypothesis(spelt, (1, 2)[: len(spelt)], (-0.5, -0.5)[: len(spelt)], score)
        for spelt, score in (((1, 2), -1.0), ((3,), -1.5), ((4,), -2.0), ((), -3.0))
    ]
    best = replace(first, others=tuple(others))
    heard = spell(tokens, best, frame_sec=0.04, duration_sec=1.0, nbest=3)
    assert [(one.text, one.score) for one in heard.alternatives] == [("AB", -1.0), ("C", -2.0), ("", -3.0)]
    two = spell(tokens, best, frame_sec=0.04, duration_sec=1.0, nbest=2)
    assert two.alternatives == heard.alternatives[:2]


@pytest.mark.parametrize("too_long_sec", [20.0, 1.2])
def test_segments_of_streams(clips: Sequence[Floats], too_long_sec: float) -> None:
    """Also of segments that are cut because they are too long, whose last word begins the next one."""
    options = StreamOptions(DecodingOptions(nbest=5)).updated({"rule3_min_utterance_length_sec": too_long_sec})
    live = LiveTranscript()
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=1) as recognizer:
        stream = recognizer.open(options)
        for begin in range(0, len(clips[0]), 4000):
            recognizer.accept(stream, clips[0][begin : begin + 4000])
            update = recognizer.advance(stream)
            assert all(not segment.alternatives for segment in update.segments if not segment.is_final)
            live.apply(update)
        recognizer.finish(stream)
        live.apply(recognizer.advance(stream))
    assert (len(live.final) > 1) == (too_long_sec < 20)
    assert any(len(segment.alternatives) > 1 for segment in live.final)
    for segment in live.final:
        assert segment.alternatives[0].text == segment.text
        assert segment.alternatives[0].words == segment.words
        assert len({one.text for one in segment.alternatives}) == len(segment.alternatives) <= 5
    heard = live.transcript()
    parts = heard.parts or [heard]
    assert [part.alternatives for part in parts] == [segment.alternatives for segment in live.final]


def test_a_ctc_head_gives_them(clips: Sequence[Floats]) -> None:
    folder, options = BUNDLES / "zipformer2-ctc-offline", [DecodingOptions(nbest=3), BEAM]
    with open_recognizer(folder, EngineChoice(head="ctc")) as recognizer:
        three, plain = recognizer.transcribe([clips[0][:20_000]] * 2, options)
    assert three.text == three.alternatives[0].text == plain.text
    scores = [one.score for one in three.alternatives]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_greedy_search_is_refused_where_that_is_chosen() -> None:
    options = DecodingOptions(hotwords_method="refuse", nbest=2)
    with pytest.raises(OptionsError, match="modified_beam_search with nbest, got greedy"):
        open_recognizer(DEMO_MODEL, options=options)
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=1) as recognizer:
        with pytest.raises(OptionsError, match="modified_beam_search with nbest, got greedy"):
            recognizer.open(StreamOptions(options))
        assert recognizer.num_open == 0
