from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.cues import cues
from moulin.transcript import PlacedWord, Transcript, Word
from moulin.transcript_formats import SUBTITLES, to_json, to_srt, to_vtt

CLOCK = {"srt": r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})", "vtt": r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})"}


@dataclass(frozen=True)
class Cue:
    start_ms: int
    end_ms: int
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")


def parse(kind: str, content: str) -> list[Cue]:
    """Strictly by the format: header or numbers, clock, one or more lines of text, an empty line between cues."""
    if kind == "vtt":
        assert content.startswith("WEBVTT\n")
        content = content.removeprefix("WEBVTT\n").removeprefix("\n")
    if not content:
        return []
    assert content.endswith("\n")
    cues = []
    for number, block in enumerate(content.removesuffix("\n").split("\n\n"), start=1):
        lines = block.split("\n")
        if kind == "srt":
            assert lines.pop(0) == str(number)
        match = re.fullmatch(f"{CLOCK[kind]} --> {CLOCK[kind]}", lines[0])
        assert match, lines[0]
        h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, match.groups())
        assert lines[1:]
        assert all(lines[1:])
        assert "-->" not in block.replace(lines[0], "") or kind == "srt"
        text = "\n".join(lines[1:])
        cues.append(Cue(((h1 * 60 + m1) * 60 + s1) * 1000 + ms1, ((h2 * 60 + m2) * 60 + s2) * 1000 + ms2, text))
    return cues


def spoken(text: str, *, at: float = 0.5, every: float = 0.4, pauses: dict[int, float] | None = None) -> Transcript:
    """`text` with a word every `every` seconds, and a longer pause before the words that `pauses` names."""
    words = []
    for number, word in enumerate(text.split()):
        at += (pauses or {}).get(number, 0.0)
        words.append(Word(word, round(at, 3), round(at + 0.04, 3), 0.9))
        at += every
    return Transcript(text, tuple(words), round(at + 1, 3))


@pytest.mark.parametrize("kind", SUBTITLES)
def test_nothing_said(kind: str) -> None:
    assert parse(kind, SUBTITLES[kind](Transcript("", (), 3.0))) == []


def test_srt() -> None:
    transcript = spoken("GOOD MORNING MOULIN", pauses={2: 2.0})
    assert to_srt(transcript) == (
        "1\n00:00:00,500 --> 00:00:01,740\nGOOD MORNING\n\n2\n00:00:03,300 --> 00:00:04,140\nMOULIN\n"
    )


def test_vtt() -> None:
    transcript = spoken("GOOD MORNING MOULIN", pauses={2: 2.0})
    assert to_vtt(transcript) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.740\nGOOD MORNING\n\n00:00:03.300 --> 00:00:04.140\nMOULIN\n"
    )


@pytest.mark.parametrize("kind", SUBTITLES)
def test_a_pause_of_a_second_starts_a_cue(kind: str) -> None:
    # 0.96 s and 1.06 s after the word before
    transcript = spoken("ONE TWO THREE FOUR FIVE", pauses={1: 0.6, 3: 0.7})
    assert [cue.text for cue in parse(kind, SUBTITLES[kind](transcript))] == ["ONE TWO THREE", "FOUR FIVE"]


@pytest.mark.parametrize("kind", SUBTITLES)
def test_long_speech_is_cut_by_length_and_by_time(kind: str) -> None:
    fast = spoken(" ".join(["ABCDEFGHI"] * 30), every=0.1)
    slow = spoken(" ".join(["AB"] * 30), every=0.9)
    for transcript in (fast, slow):
        cues = parse(kind, SUBTITLES[kind](transcript))
        assert len(cues) > 1
        assert " ".join(" ".join(cue.lines) for cue in cues) == transcript.text
        assert all(len(cue.lines) <= 2 for cue in cues)
        assert all(len(line) <= 42 for cue in cues for line in cue.lines)
        assert all(cue.end_ms - cue.start_ms <= 7_800 for cue in cues)
    assert [len(cue.text) for cue in parse(kind, SUBTITLES[kind](fast))[:2]] == [79, 79]


@pytest.mark.parametrize("kind", SUBTITLES)
def test_one_endless_word_is_a_cue(kind: str) -> None:
    cues = parse(kind, SUBTITLES[kind](spoken("A " + "B" * 200 + " C")))
    assert [cue.text for cue in cues] == ["A", "B" * 200, "C"]


@pytest.mark.parametrize("kind", SUBTITLES)
def test_the_clock_after_an_hour(kind: str) -> None:
    cues = parse(kind, SUBTITLES[kind](spoken("LATE", at=3599.9996)))
    assert cues[0].start_ms == 3_600_000
    cues = parse(kind, SUBTITLES[kind](spoken("VERY LATE", at=100 * 3600 + 61.25)))
    assert cues[0].start_ms == 360_061_250


@pytest.mark.parametrize("kind", SUBTITLES)
def test_chinese_has_no_spaces(kind: str) -> None:
    words = tuple(Word(char, at * 0.2, at * 0.2 + 0.04, 0.9) for at, char in enumerate("今天气HELLO不错" * 20))
    transcript = Transcript("今天气HELLO不错" * 20, words, 60.0)
    cues = parse(kind, SUBTITLES[kind](transcript))
    assert "".join("".join(cue.lines) for cue in cues) == transcript.text
    assert all(len(line) <= 21 for cue in cues for line in cue.lines)  # each takes two columns
    mixed = Transcript("今天 OK 不错", tuple(Word(w, 0.1, 0.14, 1.0) for w in ("今", "天", "OK", "不", "错")), 1.0)
    assert [cue.text for cue in parse(kind, SUBTITLES[kind](mixed))] == ["今天 OK 不错"]


def test_vtt_escapes_what_would_be_markup() -> None:
    [cue] = parse("vtt", to_vtt(spoken("AT&T <b> A-->B &amp;")))
    assert cue.text == "AT&amp;T &lt;b&gt; A--&gt;B &amp;amp;"


def test_srt_is_plain() -> None:
    [cue] = parse("srt", to_srt(spoken("AT&T R&D")))
    assert cue.text == "AT&T R&D"


def test_a_cue_does_not_outlast_the_recording() -> None:
    transcript = Transcript("END", (Word("END", 2.9, 2.94, 1.0),), 3.0)
    assert parse("srt", to_srt(transcript)) == [Cue(2_900, 3_000, "END")]


GAPS = st.floats(0, 4)
SPOKEN_WORDS = st.lists(st.tuples(GAPS, GAPS, st.text("ABc今é&<", min_size=1, max_size=30)), max_size=40)


@pytest.mark.parametrize("kind", SUBTITLES)
@given(SPOKEN_WORDS)
def test_any_speech(kind: str, drawn: list[tuple[float, float, str]]) -> None:
    """Cues are in order, never overlap, and hold the whole text."""
    at, words = 0.0, []
    for gap, length, word in drawn:
        words.append(Word(word, round(at + gap, 3), round(at + gap + length, 3), 0.5))
        at += gap + length
    transcript = Transcript(" ".join(word.word for word in words), tuple(words), round(at, 3))
    cues = parse(kind, SUBTITLES[kind](transcript))
    joined = " ".join(" ".join(cue.lines) for cue in cues)
    if kind == "vtt":
        joined = joined.replace("&lt;", "<").replace("&amp;", "&")
    assert joined == transcript.text
    for cue in cues:
        assert cue.start_ms <= cue.end_ms <= round(transcript.duration_sec * 1000)
    for cue, following in itertools.pairwise(cues):
        assert cue.end_ms <= following.start_ms


def test_json_is_one_line() -> None:
    transcript = Transcript('你 "HI"', (Word("你", 0.2, 0.24, 0.9), Word('"HI"', 0.4, 0.44, 0.8)), 1.5)
    line = to_json(transcript, "a b.wav")
    assert "\n" not in line
    assert "你" in line
    assert json.loads(line) == {"file": "a b.wav", **transcript.to_dict()}


def test_channels_are_labelled_and_overlap() -> None:
    spoken = [("A", 0.0, 1), ("B", 3.0, 1), ("C", 0.5, 2), ("D", 1.2, 2)]
    words = tuple(PlacedWord(word, at, at + 0.4, 0.5, channel, None) for word, at, channel in spoken)
    transcript = Transcript("A B C D", words, 9.0)
    shown = [(cue.label, cue.text, cue.start_sec, cue.end_sec) for cue in cues(transcript)]
    assert [(label, text) for label, text, _, _ in shown] == [
        ("channel 1", "A"),
        ("channel 2", "C D"),
        ("channel 1", "B"),
    ]
    assert all(end >= begin + 0.4 for _, _, begin, end in shown)
    assert "[channel 2] C D" in to_srt(transcript)
    assert "<v channel 1>A" in to_vtt(transcript)


def test_lines_have_room_for_their_label() -> None:
    words = tuple(PlacedWord("FIFTEEN", at / 2, at / 2 + 0.4, 0.5, 1 + at // 12 % 2, 10) for at in range(96))
    transcript = Transcript(" ".join(word.word for word in words), words, 48.0)
    shown = [block.splitlines()[2:] for block in to_srt(transcript).split("\n\n")]
    assert all(lines[0].startswith("[track 10 channel ") and len(lines) <= 2 for lines in shown)
    assert 36 <= max(len(line) for lines in shown for line in lines) <= 42
    assert max(len(line) for line in to_vtt(transcript).replace("<v track 10 channel 1>", "").splitlines()) > 30


def test_warnings_are_comments_in_webvtt() -> None:
    """WebVTT's comments end at an empty line, and have no arrow of a cue."""
    transcript = replace(spoken("ONE TWO"), warnings=("one\n\nline", "2 --> 3"))
    content = to_vtt(transcript)
    assert content.startswith("WEBVTT\n\nNOTE one line\n\nNOTE 2 -> 3\n\n00:00:00.500 --> ")
    assert parse("vtt", content.replace("NOTE one line\n\nNOTE 2 -> 3\n\n", "")) == parse(
        "vtt", to_vtt(spoken("ONE TWO"))
    )
    assert to_srt(transcript) == to_srt(spoken("ONE TWO"))
