"""The normalisation of the Open ASR Leaderboard, by what its own file gave.

The right column is what normalizer/normalizer.py of huggingface/open_asr_leaderboard at d1e99b2 (2026-08-21) makes of
the left one. 20,000 random texts of 100 words with apostrophes, numbers and currencies, and each of its 1,743
spellings were compared in the same way on 2026-11-29: all equal, but for names.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moulin.errors import EngineError, OptionsError
from moulin.evaluate.leaderboard_normalizer import LeaderboardNormalizer, leaderboard_normalizer

PAIRS = [
    ("She paid $20 million for it.", "she paid $20000000 for it"),
    ("It costs twenty-five dollars and 50 cents.", "it costs $25.50"),
    ("one oh one Main Street", "101 main street"),
    ("Double o seven, please!", "007 please"),
    ("In nineteen eighty-four, he'd been there.", "in 1984 he had been there"),
    ("The 21st of March, twenty twenty-six", "the 21st of march 2026"),
    ("Minus three degrees; plus four.", "-3 degrees +4"),
    ("Two and a half percent", "2.5%"),
    ("3.5% of 1,000,000", "3.5% of 1000000"),
    ("ten per cent", "10%"),
    ("Dr. Smith's house is on St. James's street.", "doctor smith s house is on saint james s street"),
    ("Mr. and Mrs. Jones vs. Prof. X", "mister and missus jones vs professor x"),
    ("It's what he's got, isn't it?", "it is what he has got is not it"),
    ("John's been gone since that's done.", "john has been gone since that is done"),
    ("Who's there? There's nobody here's all.", "who is there there is nobody here is all"),
    ("Let's go, y'all, we're gonna win.", "let us go you all we are going to win"),
    ("I'ma wanna gotta woulda coulda shoulda.", "i am going to want to got to would have could have should have"),
    ("Sorta kinda dunno, cause I can't and won't.", "sorta kinda dunno cause i can not and will not"),
    ("They'll've ain't ma'am", "they will have aint madam"),
    ("Uh, um, hmm, mhm, mm: right.", "right"),
    ("Ah, aha, ahh, ahm, eh, ehehe, em, hm, huh, hum, mhum, uhm, umm, uhuh, yes", "yes"),
    ("Huh? Hum it.", "it"),
    ("[laughter] hello (inaudible) world <unk>", "hello world"),
    ("OK, okay, kay.", "okay okay okay"),
    ("Et cetera, etcetera, etc.", "etc etc etc"),
    ("All right, alright, al right.", "alright alright alright"),
    ("Wi-Fi, hi fi, lo-fi, sci fi", "wifi hifi lofi scifi"),
    ("E-mail, e book, e-commerce, x-ray, T-shirt", "email ebook ecommerce xray tshirt"),
    ("at 5 a.m. or 6 p.m.", "at 5 am or 6 pm"),
    ("at five A M and six P M", "at 5 am and 6 pm"),
    ("how ever it goes, however", "however it goes however"),
    ("The B B C and the U S A and the U.K.", "the bbc and the usa and the uk"),
    ("a b", "a b"),
    ("a b c", "abc"),
    ("I a m", "i am"),
    ("5 G and 4 K", "5g and 4k"),
    ("i o u", "i0u"),
    ("A big cat; I saw it.", "a big cat i saw it"),
    ("The colour of the theatre's centre", "the color of the theater s center"),
    ("archaeology and archaeological travelogues", "archeology and archeological travelogs"),
    ("cancellation, cancellations, cancelation", "cancelation cancelations cancelation"),
    ("snowploughs pummelled pummelling flyers and a flyer", "snowplows pummeled pummeling flyers and a flier"),
    ("Naïve café, œuvre, Ångström, Straße, Łódź", "naive cafe oeuvre angstrom strasse lodz"),
    ("£3.50 and €20 and ¢7", "£3.50 and €20.07"),
    ("$2 and ¢7", "$2.07"),
    ("one hundred and five thousand, six hundred", "105600"),
    ("a hundred, one thousand and one", "a 101001"),
    ("first second third fourth fifth twelfth twentieth", "1st 2nd 3rd 4th 5th 12th 20th"),
    ("the sixties, the 1960s, the 60's", "the 60s the 1960s the 60s"),
    ("zero point five", "0.5"),
    ("point taken", "point taken"),
    ("triple five, double nine", "55599"),
    ("1 and ones", "one and ones"),
    ("nine one one", "911"),
    ("room 4b, b4", "room 4bb4"),
    ("http://example.com/a_b", "http example com a b"),
    ("rock 'n' roll", "rock n roll"),
    ("don 't do that", "do not do that"),
    ("the dog 's bowl", "the dog s bowl"),
    ("100 % sure", "100 sure"),
    ("#1 @home & away", "one home away"),
    ("hello-world — dash – minus", "hello world dash minus"),
    ("  spaces   everywhere  ", "spaces everywhere"),
    ("\"quoted,\" she said: 'yes'", "quoted she said yes"),
    ("Capt. Lt. Col. Gen. Sen.", "captain lieutenant colonel general senator"),
    ("Rep. Gov. Jr. Sr. Esq.", "representative governor junior senior esquire"),
]


@pytest.fixture(scope="module")
def normalize() -> LeaderboardNormalizer:
    return leaderboard_normalizer()


@pytest.mark.parametrize(("text", "normal"), PAIRS)
def test_as_the_leaderboard_s_own_file(normalize: LeaderboardNormalizer, text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_names_are_left_to_its_own_file(normalize: LeaderboardNormalizer) -> None:
    assert normalize("Alan") == "alan"  # theirs is allen
    assert "without its table of names" in normalize.description


def test_another_normalizer_is_not_changed(normalize: LeaderboardNormalizer) -> None:
    from whisper_normalizer.english import EnglishTextNormalizer

    assert normalize("uhuh kinda") == "kinda"
    assert EnglishTextNormalizer()("uhuh kinda") == "uhuh kind of"


def test_a_clone_s_own_code(tmp_path: Path) -> None:
    folder = tmp_path / "normalizer"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('it needs much')")
    (folder / "words.py").write_text("REMOVED = 'x'")
    (folder / "normalizer.py").write_text(
        "from .words import REMOVED\n"
        "class EnglishTextNormalizer:\n    def __call__(self, text): return text.lower().replace(REMOVED, ' ')\n"
    )
    normalize = leaderboard_normalizer(tmp_path)
    assert normalize("AxB  C") == "a b c"
    assert str(tmp_path) in normalize.description


def test_another_folder_is_no_clone(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="Expected a clone of huggingface/open_asr_leaderboard"):
        leaderboard_normalizer(tmp_path)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    with pytest.raises(EngineError, match="needs whisper-normalizer") as caught:
        leaderboard_normalizer()
    assert "[leaderboard]" in str(caught.value.hint)
