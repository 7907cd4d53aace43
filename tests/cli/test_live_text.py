"""Text written where nothing can be taken back."""

from __future__ import annotations

import io

import pytest

from moulin.cli.live_text import TextLines
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.live_transcript import LiveTranscript, Segment, StreamUpdate
from moulin.spacing import join_texts
from moulin.stream_audio import cut, stream_in_process
from moulin.transcript import Word
from tests.conftest import Recording


def update(now_sec: float, *segments: tuple[str, bool], begin_sec: float = 0.0, between: str = " ") -> StreamUpdate:
    """Segments one after another, with a word of 0.4 s every half second from `begin_sec` on."""
    made, at = [], begin_sec
    for number, (text, final) in enumerate(segments):
        words = []
        for word in text.split():
            words.append(Word(word, at, at + 0.4, 1))
            at += 0.5
        made.append(Segment(number, between.join(text.split()), tuple(words), final))
    return StreamUpdate(tuple(made), False, False, now_sec)


def written(*updates: StreamUpdate) -> list[list[str]]:
    """The lines after each update, and at the end."""
    to, seen = io.StringIO(), []
    lines = TextLines(to)
    for each in updates:
        lines.write(each)
        seen.append(to.getvalue().splitlines())
        assert not to.getvalue() or to.getvalue().endswith("\n")
    lines.end()
    return [*seen, to.getvalue().splitlines()]


def test_a_word_is_written_a_second_after_it_began() -> None:
    assert written(
        update(0.9, ("ONE TW", False)),
        update(1.0, ("ONE TW", False)),
        update(1.6, ("ONE TWO THREE", False)),
        update(2.0, ("ONE TWO THREE FOUR", False)),
        update(2.4, ("ONE TWO THREE FOUR", True)),
    ) == [[], ["ONE"], ["ONE"], ["ONE", "TWO THREE"], ["ONE", "TWO THREE", "FOUR"], ["ONE", "TWO THREE", "FOUR"]]


def test_the_last_word_is_written_a_second_after_it_ended() -> None:
    said = update(1.3, ("ONE", False)), update(1.5, ("ONE", False)), update(1.7, ("ONE", True))
    assert written(*said) == [[], ["ONE"], ["ONE"], ["ONE"]]


def test_words_that_grow_behind_what_was_written() -> None:
    said = update(1.5, ("ONE TW", False)), update(2.6, ("ONE TWOS", False)), update(3.0, ("ONE TWOS", True))
    assert written(*said)[-1] == ["ONE", "TWOS"]


def test_a_word_that_moves_into_the_next_segment() -> None:
    said = (
        update(3.0, ("ONE TWO THREE", False)),
        update(3.2, ("ONE TWO", True), ("THREE", False)),
        update(5.0, ("THREE FOUR", False), begin_sec=1.0),
        update(6.0, ("THREE FOUR", True), begin_sec=1.0),
    )
    assert written(*said)[-1] == ["ONE TWO THREE", "FOUR"]


def test_what_is_written_is_neither_repeated_nor_taken_back() -> None:
    """Modified beam search may change a word that is written: the text goes on behind it."""
    said = (
        update(1.2, ("WON TWO", False)),
        update(2.4, ("ONE TWO THREE", False)),
        update(3.0, ("ONE TWO THREE FOUR", True)),
        update(9.0, ("ONE", True), begin_sec=8.0),
    )
    assert written(*said)[-1] == ["WON", "TWO THREE", "FOUR", "ONE"]


def test_a_script_without_spaces() -> None:
    said = update(1.5, ("一 二 三", False), between=""), update(2.5, ("一 二 三 四", True), between="")
    assert written(*said)[-1] == ["一 二".replace(" ", ""), "三四"]


def test_nothing_was_said() -> None:
    assert written(update(1.0)) == [[], [""]]


@pytest.mark.parametrize(("method", "chunk_ms"), [("greedy", 320), ("modified_beam_search", 100)])
def test_text_of_clips_is_complete_and_in_time(recordings: list[Recording], method: str, chunk_ms: int) -> None:
    """The first line is there within 2 s of the first word, by the audio's clock, and no later word waits for long."""
    for clip in recordings[:5]:
        to, live, waiting = io.StringIO(), LiveTranscript(), []
        lines = TextLines(to)
        for each in stream_in_process(cut(clip.waveform, chunk_ms), DEMO_STREAMING_MODEL, options={"method": method}):
            lines.write(each)
            live.apply(each)
            words = live.transcript().words
            unwritten = words[len(to.getvalue().split()) :]
            waiting.append(each.duration_sec - unwritten[0].start_sec if unwritten else 0.0)
            if words and not to.getvalue():
                assert each.duration_sec - words[0].start_sec < 2
        text = ""
        for line in to.getvalue().splitlines():
            text = join_texts(text, line)
        assert text == live.text
        assert max(waiting) < 2.5
