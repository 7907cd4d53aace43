"""Hotwords as people write them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.decoding.hotwords import MOST_HOTWORDS, Hotword, given_hotwords, hotwords_text
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([], ()),
        (["nvidia", "open ai"], (Hotword("nvidia"), Hotword("open ai"))),
        ([{"phrase": "moulin", "score": 2}, {"phrase": "é"}], (Hotword("moulin", 2), Hotword("é"))),
        ([{"phrase": "a", "score": 2, "optional": True}], (Hotword("a", 2, optional=True),)),
        ([{"phrase": "a", "optional": True}, "b"], (Hotword("a", optional=True), Hotword("b"))),
    ],
)
def test_json(value: Any, wanted: tuple[Hotword, ...]) -> None:
    options = DecodingOptions().updated_from_json(json.dumps({"hotwords": value, "hotwords_score": 2.5}))
    assert options.hotwords == wanted
    assert options.hotwords_score == 2.5
    assert DecodingOptions().updated_from_json(json.dumps(options.to_dict())) == options
    assert hash(options.hotwords) == hash(wanted)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("nvidia", "to be a list of phrases, got 'nvidia'"),
        (None, "to be a list of phrases, got None"),
        ({"phrase": "a"}, "to be a list of phrases"),
        ([1], "to be text or"),
        ([["a"]], "to be text or"),
        ([{}], "to be text or"),
        ([{"phrase": "a", "scoer": 1}], "to be text or"),
        ([{"phrase": 1}], "of letters, got 1"),
        ([""], "of letters, got ''"),
        (["  "], "of letters"),
        (["a" * 101], "at most 100 characters"),
        ([{"phrase": "a", "score": 0}], "score of hotword 'a' above 0 and of at most 100, got 0"),
        ([{"phrase": "a", "score": -1.5}], "above 0"),
        ([{"phrase": "a", "score": 1e9}], "at most 100"),
        ([{"phrase": "a", "score": "2"}], "got '2'"),
        ([{"phrase": "a", "score": True}], "got True"),
        ([{"phrase": "a", "optional": 1}], "to be true or false, got 1"),
        (["a"] * (MOST_HOTWORDS + 1), "at most 1,000 hotwords in a request, got 1,001"),
    ],
)
def test_json_that_makes_no_sense(value: Any, match: str) -> None:
    with pytest.raises(OptionsError, match=match):
        DecodingOptions().updated_from_json(json.dumps({"hotwords": value}))


@pytest.mark.parametrize("score", [0, -1, 101, "1", None, True])
def test_scores_that_make_no_sense(score: Any) -> None:
    with pytest.raises(OptionsError, match="hotwords-score"):
        DecodingOptions(hotwords_score=score)


def test_a_thousand_long_phrases_fit_into_a_request() -> None:
    values = [{"phrase": f"{number:05} {'x' * 94}", "score": 1.25} for number in range(MOST_HOTWORDS)]
    assert len(DecodingOptions().updated_from_json(json.dumps({"hotwords": values})).hotwords) == MOST_HOTWORDS


def test_a_file_in_the_form_of_sherpa_onnx(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_bytes("\ufeffHELLO WORLD :2.5\r\n\n  你好  \nNEW   YORK\t:1\n".encode())
    wanted = (Hotword("HELLO WORLD", 2.5), Hotword("你好"), Hotword("NEW YORK", 1.0))
    assert given_hotwords(str(file)) == wanted
    (tmp_path / "again").write_text(hotwords_text(wanted))
    assert given_hotwords(str(tmp_path / "again")) == wanted


def test_words_on_the_command_line() -> None:
    wanted = (Hotword("nvidia"), Hotword("open ai", 2.0), Hotword("you"))
    assert given_hotwords("nvidia, open ai :2.0,you,") == wanted


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "There are no hotwords in .*words"),
        (b"\n \n", "There are no hotwords"),
        (b"a\nb :x\n", "a number after ':' in .*words, line 2, got 'b :x'"),
        (b"a\n:1.5\n", "'PHRASE' or 'PHRASE :SCORE' in .*words, line 2, got ':1.5'"),
        (b"a :1 b\n", "line 1, got 'a :1 b'"),
        (b"a :1 :2\n", "line 1"),
        (b"a :0\n", "above 0.*line 1"),
        (b"a :nan\n", "above 0.*line 1"),
        (b"a :inf\n", "at most 100.*line 1"),
        (b"a" * 101, "at most 100 characters.*line 1"),
        (b"\xff\n", "not UTF-8"),
        (b"a\n" * 6, "at most 5 hotwords"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, content: bytes, match: str) -> None:
    file = tmp_path / "words"
    file.write_bytes(content)
    with pytest.raises(OptionsError, match=match) as caught:
        given_hotwords(str(file), most=5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["words.txt", "folder/words", "./words"])
def test_a_file_that_is_not_there(missing: str) -> None:
    with pytest.raises(OptionsError, match="There is no file of hotwords"):
        given_hotwords(missing)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    said = ""
    try:
        assert given_hotwords(text)
    except OptionsError as error:
        said = str(error)
    assert "\n" not in said


def test_a_list_counts_its_hash_once_and_other_processes_their_own() -> None:
    listed = DecodingOptions(hotwords=(Hotword("nvidia"), Hotword("open ai", 2.0))).hotwords
    assert hash(listed) == hash(tuple(listed)) == hash(listed)
    assert DecodingOptions(hotwords=listed, beam=3).hotwords is listed
    code = "import pickle, sys; one = pickle.load(sys.stdin.buffer); print(hash(one) == hash(tuple(one)), len(one))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(listed), capture_output=True, check=True)
    assert done.stdout.split() == [b"True", b"2"]
