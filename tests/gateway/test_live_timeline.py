from __future__ import annotations

from moulin.gateway.live_timeline import Timeline
from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word


def _update(*segments: tuple[int, float, bool], duration_sec: float) -> StreamUpdate:
    found = (
        Segment(number, "A", (Word("A", start, start + 0.04, 1.0),), is_final) for number, start, is_final in segments
    )
    return StreamUpdate(tuple(found), False, False, duration_sec)


def _places(update: StreamUpdate) -> list[tuple[int, float, float]]:
    return [(segment.number, segment.start_sec, segment.end_sec) for segment in update.segments]


def test_a_second_stream_goes_on_where_the_first_ended() -> None:
    timeline = Timeline()
    timeline.send(32_000)
    first = timeline.placed(_update((0, 0.4, True), (1, 1.2, True), duration_sec=2.0))
    assert _places(first) == [(0, 0.4, 0.44), (1, 1.2, 1.24)]
    timeline.end()
    timeline.send(16_000)
    second = timeline.placed(_update((0, 0.2, False), duration_sec=1.0))
    assert _places(second) == [(2, 2.2, 2.24)]
    assert second.duration_sec == 3.0
    # The open segment keeps its number when it closes, and the next stream counts on from it.
    assert _places(timeline.placed(_update((0, 0.2, True), duration_sec=1.0))) == [(2, 2.2, 2.24)]
    timeline.end()
    timeline.send(1)
    assert _places(timeline.placed(_update((0, 0.0, False), duration_sec=0.0))) == [(3, 3.0, 3.04)]


def test_audio_that_is_not_sent_moves_what_follows() -> None:
    timeline = Timeline()
    timeline.skip_to(7.5)
    timeline.send(16_000)
    assert timeline.sent_sec == 8.5
    assert _places(timeline.placed(_update((0, 0.1, True), duration_sec=1.0))) == [(0, 7.6, 7.64)]


def test_a_stream_is_open_from_its_first_audio_to_its_end() -> None:
    timeline = Timeline()
    opened = [timeline.is_open]
    timeline.send(1)
    opened.append(timeline.is_open)
    timeline.end()
    assert [*opened, timeline.is_open] == [False, True, False]
