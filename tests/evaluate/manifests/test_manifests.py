"""Every form in which people keep recordings with their transcripts, and what is said of those that are wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moulin.demo.files import DEMO_MANIFEST
from moulin.errors import AudioError, EngineError, OptionsError
from moulin.evaluate.manifest import read_manifest
from moulin.evaluate.utterance import Utterance


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings: a.wav, 1 s at 16 kHz that counts up, and b.flac, half a second at 8 kHz."""
    soundfile.write(tmp_path / "a.wav", np.arange(16000, dtype=np.float32) / 16000, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.flac", np.zeros(4000, dtype=np.float32), 8000)
    return tmp_path


def listed(utterances: list[Utterance]) -> list[tuple[str, str, str]]:
    return [(it.id, it.audio.name, it.text) for it in utterances]


BOTH = [("a", "a.wav", "ONE TWO"), ("b", "b.flac", "THREE")]


def jsonl(folder: Path) -> Path:
    lines = [{"audio": "a.wav", "text": "ONE TWO"}, {"audio_filepath": str(folder / "b.flac"), "text": "THREE"}]
    file = folder / "list.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return file


def packed_jsonl(folder: Path) -> Path:
    file = folder / "list.jsonl.gz"
    file.write_bytes(gzip.compress(jsonl(folder).read_bytes()))
    return file


def kaldi(folder: Path) -> Path:
    (folder / "wav.scp").write_text(f"a a.wav\nb {folder}/b.flac\n")
    (folder / "text").write_text("a ONE TWO\nb THREE\n")
    return folder


def kaldi_list(folder: Path) -> Path:
    return kaldi(folder) / "wav.scp"


def transcripts_beside(folder: Path) -> Path:
    (folder / "a.txt").write_text("ONE\nTWO\n")
    (folder / "b.lab").write_text("THREE")
    return folder


def chapter(folder: Path) -> Path:
    (folder / "84-1.trans.txt").write_text("a ONE TWO\nb THREE\n")
    return folder


@pytest.mark.parametrize("write", [jsonl, packed_jsonl, kaldi, kaldi_list, transcripts_beside, chapter])
def test_every_form_gives_the_same_recordings(write: Callable[[Path], Path], folder: Path) -> None:
    utterances = read_manifest(write(folder))
    assert listed(utterances) == BOTH
    assert [len(it.waveform()) for it in utterances] == [16000, 8000]


def test_the_demo_manifest() -> None:
    utterances = read_manifest(DEMO_MANIFEST)
    assert len(utterances) == len({it.id for it in utterances}) == 14


def test_pieces_of_a_recording(folder: Path) -> None:
    """Kaldi's segments and NeMo's offsets; a duration without an offset is only information."""
    kaldi(folder)
    (folder / "segments").write_text("a1 a 0.25 0.5\na2 a 0.5 -1\n")
    (folder / "text").write_text("a2 TWO\na1 ONE\n")
    second, first = read_manifest(folder)
    np.testing.assert_allclose(first.waveform(), np.arange(4000, 8000) / 16000)
    np.testing.assert_allclose(second.waveform(), np.arange(8000, 16000) / 16000)
    file = folder / "pieces.jsonl"
    file.write_text(
        '{"audio": "a.wav", "text": "ONE", "offset": 0.25, "duration": 0.25}\n'
        '{"audio": "a.wav", "text": "TWO", "duration": 0.1}\n'
    )
    piece, whole = read_manifest(file)
    assert (len(piece.waveform()), len(whole.waveform())) == (4000, 16000)
    assert (piece.id, whole.id) == ("a", "a#2")
    with pytest.raises(AudioError, match=r"late begins at 3 s of .*a\.wav, which is 1 s long"):
        Utterance(folder / "a.wav", "", "late", start_sec=3).waveform()


needs_lhotse = pytest.mark.needs("lhotse")


def lhotse_manifests(folder: Path) -> None:
    """As Lhotse's own recipes write them."""
    from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    recordings = RecordingSet.from_recordings(Recording.from_file(folder / name) for name in ("a.wav", "b.flac"))
    supervisions = SupervisionSet.from_segments(
        [
            SupervisionSegment("a", "a", 0.0, 1.0, text="ONE TWO"),
            SupervisionSegment("b", "b", 0.0, 0.5, text="THREE"),
        ]
    )
    recordings.to_file(folder / "recordings_test.jsonl.gz")
    supervisions.to_file(folder / "supervisions_test.jsonl.gz")
    cuts = CutSet.from_manifests(recordings, supervisions)
    cuts.to_file(folder / "cuts_test.jsonl.gz")


@needs_lhotse
@pytest.mark.parametrize("name", ["cuts_test.jsonl.gz", "recordings_test.jsonl.gz", "."])
def test_lhotse(name: str, folder: Path) -> None:
    lhotse_manifests(folder)
    utterances = read_manifest(folder / name)
    assert [it.text for it in utterances] == ["ONE TWO", "THREE"]
    assert [len(it.waveform()) for it in utterances] == [16000, 8000]
    np.testing.assert_allclose(utterances[0].waveform(), np.arange(16000) / 16000, atol=1e-4)


@needs_lhotse
def test_a_mixed_cut_is_what_lhotse_mixes(folder: Path) -> None:
    from lhotse import CutSet

    lhotse_manifests(folder)
    first, _ = CutSet.from_file(folder / "cuts_test.jsonl.gz")
    CutSet.from_cuts([first.append(first.pad(1.5))]).to_file(folder / "mixed.jsonl.gz")
    (mixed,) = read_manifest(folder / "mixed.jsonl.gz")
    assert mixed.text == "ONE TWO ONE TWO"
    assert len(mixed.waveform()) == 40000


@needs_lhotse
def test_supervisions_that_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lhotse_manifests(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "texts.jsonl.gz"
    (folder / "supervisions_test.jsonl.gz").rename(elsewhere)
    assert len(read_manifest(folder / "recordings_test.jsonl.gz", elsewhere)) == 2
    with pytest.raises(OptionsError, match="there are no supervisions"):
        read_manifest(folder / "recordings_test.jsonl.gz")


def test_without_lhotse_the_error_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(folder / "cuts_test.jsonl.gz", "wt") as cuts:
        cuts.write(json.dumps({"id": "a", "type": "MonoCut", "start": 0.0, "duration": 1.0, "channel": 0}) + "\n")
    monkeypatch.setitem(__import__("sys").modules, "lhotse", None)
    with pytest.raises(EngineError, match="Lhotse") as caught:
        read_manifest(folder / "cuts_test.jsonl.gz")
    assert caught.value.hint == "pip install '.[lhotse]' in moulin's folder"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.jsonl", '{"audio": "a.wav"}', r'Expected \{"audio": …, "text": …\} on line 1 of .*x.jsonl'),
        ("x.jsonl", '{"audio": "a.wav", "text": "ONE"}\n[1]', "on line 2"),
        (
            "x.jsonl",
            '{"audio": "nowhere.wav", "text": "ONE"}',
            "1 of the 1 recordings .* missing, the first is .*nowh",
        ),
        ("x.jsonl", "\n\n", "names no recordings"),
        ("x.jsonl", b"\xff\xfe\x00", "not text in UTF-8"),
        ("x.jsonl.gz", b"no gzip", "cannot be read"),
        ("wav.scp", "a sox a.wav -t wav - |\n", "got the command"),
        ("wav.scp", "a feats.ark:123\n", "a place in an archive"),
        ("wav.scp", "a\n", "got nothing"),
        ("wav.scp", "a a.wav\na b.flac\n", "'a' on line 2 of .*wav.scp is already on line 1"),
        ("wav.scp", "b b.flac\n", "'a', which .*text names on line 1, is not in"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(file: str, content: str | bytes, message: str, folder: Path) -> None:
    (folder / "text").write_text("a ONE TWO\n")
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(OptionsError, match=message):
        read_manifest(folder / file)


def test_segments_that_do_not_fit(folder: Path) -> None:
    kaldi(folder)
    (folder / "segments").write_text("a a 0 1\n")
    with pytest.raises(OptionsError, match=r"'b' on line 2 of .*text is not in .*segments"):
        read_manifest(folder)
    (folder / "segments").write_text("a a zero 1\nb b 0 1\n")
    with pytest.raises(OptionsError, match=r"Expected RECORDING START END in seconds on line 1 of .*got 'a zero 1'"):
        read_manifest(folder)


def test_a_folder_where_a_transcript_is_missing(folder: Path) -> None:
    (folder / "a.txt").write_text("ONE")
    with pytest.raises(OptionsError, match=r"1 of the 2 recordings in .* have no transcript, the first is b\.flac"):
        read_manifest(folder)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="does not exist") as caught:
        read_manifest(tmp_path / "nothing")
    assert "Kaldi" in str(caught.value.hint)
    with pytest.raises(OptionsError, match="names no recordings"):
        read_manifest(tmp_path)
