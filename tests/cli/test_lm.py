"""`moulin lm build`."""

from __future__ import annotations

import gzip
from pathlib import Path

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
from moulin.language_models.arpa import read_arpa
from moulin.language_models.kneser_ney import kneser_ney

from .command import moulin_here

LINES = ["ONE TWO THREE", "ZERO ONE", "", "ONE ONE ÄH"]


def text(folder: Path) -> Path:
    (folder / "text").write_text("\n".join(LINES))
    return folder / "text"


def test_of_words(tmp_path: Path) -> None:
    done = moulin_here("lm", "build", text(tmp_path), "--to", tmp_path / "lm.arpa").expect(0)
    wanted = kneser_ney([line.split() for line in LINES], 3)
    assert read_arpa(tmp_path / "lm.arpa").words == wanted.words
    assert done.err.splitlines()[-1] == f"Wrote {tmp_path / 'lm.arpa'}: 8 1-grams, 10 2-grams, 8 3-grams"
    assert {file.name for file in tmp_path.iterdir()} == {"text", "lm.arpa"}


def test_of_a_models_tokens(tmp_path: Path) -> None:
    """Of its folder or its tokens.txt, whose bpe.model lies beside it; lower case is folded."""
    (tmp_path / "text").write_text("\n".join(LINES).lower())
    table = load_bundle(DEMO_MODEL).tokens
    said = [[table.symbols[token] for token in table.spell(line)] for line in LINES[:2]]
    wanted = kneser_ney(said, 2)
    for tokens in (DEMO_MODEL, DEMO_MODEL / "tokens.txt"):
        to = tmp_path / "lm.gz"
        done = moulin_here("lm", "build", tmp_path / "text", "--tokens", tokens, "--to", to, "--order", 2).expect(0)
        assert "1 lines cannot be spelt in the model's tokens and are left out: The phrase 'one" in done.err
        assert gzip.decompress(to.read_bytes()).startswith(b"\\data\\\nngram 1=")
        assert read_arpa(to).words == wanted.words
        for level, of_text in zip(read_arpa(to).levels, wanted.levels, strict=True):
            assert level.words.tolist() == of_text.words.tolist()


def test_what_is_refused(tmp_path: Path) -> None:
    to = tmp_path / "lm.arpa"
    (tmp_path / "empty").write_text("\n")
    for arguments, said in (
        ([tmp_path / "none"], "Cannot read the text in"),
        ([tmp_path / "empty"], "Expected text to count n-grams in, got none"),
        ([text(tmp_path), "--tokens", tmp_path / "none"], "none"),
    ):
        assert said in moulin_here("lm", "build", *arguments, "--to", to).expect(1).err
        assert not to.exists()
