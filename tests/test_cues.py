"""Subtitles as guides want them: even lines, cues that can be read, and no word left alone."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from moulin.cues import Cue, cues
from moulin.transcript import Transcript, Word

SAID = """
it was the best of times it was the worst of times it was the age of wisdom it was the age of foolishness it was the
epoch of belief it was the epoch of incredulity it was the season of light it was the season of darkness in short the
period was so far like the present period that some of its noisiest authorities insisted on its being received for
good or for evil in the superlative degree of comparison only
"""
TEXT = SAID.split()


def speech(
    words: list[str], *, seed: int, pauses: float = 0.1, longest_pause: float = 0.9, space: str = " "
) -> Transcript:
    """`words` as long as their letters, of which a share of `pauses` is followed by a pause."""
    draw, at, spoken = random.Random(seed), 0.5, []
    for word in words:
        seconds = 0.08 + 0.06 * len(word) * draw.uniform(0.7, 1.3)
        spoken.append(Word(word, round(at, 3), round(at + seconds, 3), 0.9))
        at += seconds + (draw.uniform(0.1, longest_pause) if draw.random() < pauses else draw.choice([0, 0, 0.04]))
    return Transcript(space.join(words), tuple(spoken), round(at + 1, 3))


def columns(text: str) -> int:
    return sum(2 if "\u3000" <= char <= "\u9fff" else 1 for char in text)


def check(found: list[Cue], transcript: Transcript) -> None:
    assert [word for cue in found for word in cue.words] == list(transcript.words)
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(columns(line) <= 42 for line in cue.lines)
        assert cue.words[-1].end_sec - cue.start_sec <= 7
        assert cue.start_sec == cue.words[0].start_sec
        assert cue.words[-1].end_sec <= cue.end_sec
    for cue, following in pairwise(found):
        assert cue.end_sec <= following.start_sec


@pytest.mark.parametrize("seed", range(10))
def test_fluent_speech(seed: int) -> None:
    transcript = speech(TEXT * 4, seed=seed)
    found = list(cues(transcript))
    check(found, transcript)
    assert not [cue.text for cue in found if len(cue.words) == 1]
    assert not [cue.text for cue in found if cue.end_sec - cue.start_sec < 0.8]
    assert not [cue.text for cue in found if len(cue.text) / (cue.end_sec - cue.start_sec) > 20]
    uneven = [abs(len(cue.lines[0]) - len(cue.lines[1])) for cue in found if len(cue.lines) == 2]
    assert max(uneven) <= 15
    assert sum(uneven) / len(uneven) < 5


@pytest.mark.parametrize("seed", range(10))
def test_a_word_is_alone_only_between_long_pauses(seed: int) -> None:
    transcript = speech(TEXT * 2, seed=seed, pauses=0.4, longest_pause=3)
    found = list(cues(transcript))
    check(found, transcript)
    for before, cue, after in zip(found, found[1:], found[2:], strict=False):
        if len(cue.words) == 1:
            pauses = cue.start_sec - before.words[-1].end_sec, after.start_sec - cue.words[0].end_sec
            assert min(pauses) > 1
            assert max(pauses) > 2


def test_breaks_are_where_the_speaker_pauses() -> None:
    words = [
        Word(word, 0.4 * number + 0.6 * (number >= 7), 0.4 * number + 0.3 + 0.6 * (number >= 7), 1)
        for number, word in enumerate(TEXT[:17])
    ]
    found = list(cues(Transcript(" ".join(TEXT[:17]), tuple(words), 8)))
    assert [len(cue.words) for cue in found] == [7, 10]


def test_breaks_are_at_the_ends_of_sentences() -> None:
    text = (
        "We went to the market this morning. Then it rained all day, so we stayed at home and read old letters again."
    )
    words = tuple(Word(word, 0.3 * number, 0.3 * number + 0.3, 1) for number, word in enumerate(text.split()))
    found = list(cues(Transcript(text, words, 10)))
    assert found[0].text == "We went to the market this morning."


def test_two_even_lines() -> None:
    text = "we were all going direct to heaven we were all going direct"
    words = tuple(Word(word, 0.3 * number, 0.3 * number + 0.3, 1) for number, word in enumerate(text.split()))
    (cue,) = cues(Transcript(text, words, 10))
    assert cue.lines == ("we were all going direct to", "heaven we were all going direct")
    assert cue.text == text


def test_it_stays_until_it_is_read() -> None:
    """59 columns in 1.5 s take 3.5 s to read, for which the recording has time, or has not."""
    text = " ".join(["notwithstanding"] * 3 + ["moreover"])
    words = tuple(Word(word, 0.4 * number, 0.4 * number + 0.4, 1) for number, word in enumerate(text.split()))
    (cue,) = cues(Transcript(text, words, 10))
    assert cue.end_sec == pytest.approx(len(text) / 17, abs=1e-3)
    (cue,) = cues(Transcript(text, words, 2))
    assert cue.end_sec == 2


@pytest.mark.parametrize("seed", range(3))
def test_chinese(seed: int) -> None:
    characters = list("今天天气很好我们一起去公园散步吧然后再去吃饭怎么样我觉得非常不错" * 8)
    transcript = speech(characters, seed=seed, pauses=0.05, space="")
    found = list(cues(transcript))
    check(found, transcript)
    assert "".join("".join(cue.lines) for cue in found) == transcript.text
    assert not [cue.text for cue in found if len(cue.words) == 1]


def test_letters_of_a_word_stay_together() -> None:
    """Of a vocabulary of characters, each of which is a word."""
    characters = list("我们用OPENAI的接口来转写这段录音然后再用MOULIN转写一次看看结果是不是一样好")
    transcript = speech(characters, seed=0, space="")
    lines = [line for cue in cues(transcript) for line in cue.lines]
    assert "".join(lines) == transcript.text
    assert sum("OPENAI" in line for line in lines) == sum("MOULIN" in line for line in lines) == 1


def test_hours_take_no_time() -> None:
    """An hour without a pause, a second or less of work."""
    transcript = speech(TEXT * 130, seed=0, pauses=0)
    assert len(transcript.words) > 10_000
    check(list(cues(transcript)), transcript)
