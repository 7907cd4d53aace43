"""Files of n-grams: what is in them, and every way to be wrong."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import numpy as np
import pytest

from moulin.errors import BundleError
from moulin.language_models import arpa
from moulin.language_models.arpa import read_arpa, write_arpa
from moulin.language_models.kneser_ney import kneser_ney

from .toy_text import toy_text

SMALL = """Comments may come first.
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.25
-0.5\t</s>
-1\tété\t-0.5
-0.75\tb

\\2-grams:
-0.125 <s> été
-0.25 été b

\\end\\
"""


def test_a_small_one(tmp_path: Path) -> None:
    file = tmp_path / "small.arpa"
    file.write_text(SMALL)
    (tmp_path / "small.gz").write_bytes(gzip.compress(SMALL.encode()))
    (tmp_path / "crlf").write_bytes(SMALL.replace("\n", "\r\n").encode())
    (tmp_path / "bom").write_bytes(codecs.BOM_UTF8 + SMALL.encode())
    for found in map(read_arpa, (file, tmp_path / "small.gz", tmp_path / "crlf", tmp_path / "bom")):
        assert found.words == ["<s>", "</s>", "été", "b"]
        unigrams, bigrams = found.levels
        assert unigrams.words.tolist() == [[0], [1], [2], [3]]
        np.testing.assert_allclose(unigrams.log_probs, np.log(10) * np.array([-99, -0.5, -1, -0.75]), rtol=1e-6)
        np.testing.assert_allclose(unigrams.backoffs, np.log(10) * np.array([-0.25, 0, -0.5, 0]), rtol=1e-6)
        assert bigrams.words.tolist() == [[0, 2], [2, 3]]
        assert bigrams.backoffs.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("\\data\\", "\\dat\\", "is no ARPA file of n-grams: it has no line"),
        ("ngram 1=4", "ngram 2=4", r"Expected the order 1 of at most 10 on line 3 of .*, got b'ngram 2=4'"),
        ("ngram 1=4", "ngram 1=999999999", r"Expected at most 16,777,216 words and 200,000,000 n-grams on line 3"),
        ("ngram 1=4", "ngram 1=0", r"Expected ngram 1=COUNT, of at least one word on line 6"),
        ("ngram 1=4", "ngram 1=5", r"Expected LOGPROB, 1 word and perhaps a back-off on line 11 of .*, got b''"),
        ("ngram 2=2", "ngram 2=1", r"Expected \\end\\, as there are as many n-grams as the header says on line 14"),
        ("-1\tété", "x\tété", r"Expected numbers before and behind the words on line 9 of .*\\xc3"),
        ("-1\tété", "1\tété", "Expected a log-probability of at most 0 and a back-off of at most 1,000 on line 9"),
        ("-1\tété", "nan\tété", "Expected a log-probability of at most 0 and a back-off of at most 1,000 on line 9"),
        ("\t-0.5\n", "\tinf\n", "Expected a log-probability of at most 0 and a back-off of at most 1,000 on line 9"),
        ("\t-0.5\n", "\t1e38\n", "a back-off of at most 1,000 on line 9"),
        ("-0.75\tb", "-0.75\t</s>", r"Expected each word once among the 1-grams on line 10 of .*</s>"),
        ("<s> été", "<s> c", r"Expected words that are 1-grams too, not b'c', on line 13"),
        ("<s> été", "<s>", r"Expected LOGPROB, 2 words and perhaps a back-off on line 13"),
        ("-0.125 <s> été", "-0.125 <s> été 0 0", r"Expected LOGPROB, 2 words and perhaps a back-off on line 13"),
        ("-0.25 été b\n\n\\end\\\n", "", "ends within its n-grams, on line 13"),
        ("\\end\\", "", r"Expected \\end\\"),
        ("-0.125 <s>", "a" * 70_000 + " -0.125 <s>", "Expected numbers before .* on line 13 of .*70,0"),
    ],
)
def test_faults_are_found_with_their_line(tmp_path: Path, old: str, new: str, match: str) -> None:
    assert SMALL.count(old) >= 1
    (tmp_path / "bad.arpa").write_text(SMALL.replace(old, new, 1))
    with pytest.raises(BundleError, match=match):
        read_arpa(tmp_path / "bad.arpa")


@pytest.mark.parametrize("never", ["-inf", "-1e300", "-1e38"])
def test_what_never_occurs_is_finite(tmp_path: Path, never: str) -> None:
    """Infinite scores would have no difference, nor a sum with a positive back-off."""
    (tmp_path / "a").write_text(SMALL.replace("-1\tété", f"{never}\tété"))
    assert read_arpa(tmp_path / "a").levels[0].log_probs[2] == pytest.approx(-1000 * np.log(10))


@pytest.mark.parametrize("first_word", ["<s>", "W3"])
def test_the_first_of_equal_words_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_word: str
) -> None:
    """A word that comes again many lines later."""
    monkeypatch.setattr(arpa, "_LINES", 3)
    monkeypatch.setattr(arpa, "_BLOCK_BYTES", 50)
    write_arpa(kneser_ney(toy_text(), 1), tmp_path / "a")
    lines = (tmp_path / "a").read_text().replace("W7\n", f"{first_word}\n")
    (tmp_path / "a").write_text(lines)
    number = 1 + [n for n, line in enumerate(lines.split("\n")) if line.endswith(f"\t{first_word}")][-1]
    with pytest.raises(BundleError, match=f"Expected each word once among the 1-grams on line {number}"):
        read_arpa(tmp_path / "a")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no file of n-grams"):
        read_arpa(tmp_path / "none")
    with pytest.raises(BundleError, match="There is no file of n-grams"):
        read_arpa(tmp_path)
    (tmp_path / "kenlm").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100))
    with pytest.raises(BundleError, match=r"KenLM's binary form.*give the ARPA"):
        read_arpa(tmp_path / "kenlm")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(SMALL.encode())[:60])
    with pytest.raises(BundleError, match="Cannot read the n-grams in"):
        read_arpa(tmp_path / "cut.gz")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(20_000_000)))
    with pytest.raises(BundleError, match="a line of more than 65,536 bytes"):
        read_arpa(tmp_path / "bomb.gz")
    (tmp_path / "latin").write_bytes(SMALL.encode("latin-1"))
    with pytest.raises(BundleError, match="a word that is not UTF-8"):
        read_arpa(tmp_path / "latin")


@pytest.mark.parametrize("block", [37, 1 << 22])
def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Blocks that end anywhere within a line."""
    monkeypatch.setattr(arpa, "_BLOCK_BYTES", block)
    written = kneser_ney(toy_text(sentences=50), 3)
    write_arpa(written, tmp_path / "a.arpa")
    found = read_arpa(tmp_path / "a.arpa")
    assert found.words == written.words
    for ours, theirs in zip(found.levels, written.levels, strict=True):
        assert ours.words.tolist() == theirs.words.tolist()
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, rtol=1e-5)
        np.testing.assert_allclose(ours.backoffs, theirs.backoffs, rtol=1e-5, atol=1e-6)
