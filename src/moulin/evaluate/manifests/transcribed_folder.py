"""A folder of audio: a transcript beside each file (`a.flac`, `a.txt`), or LibriSpeech's one file a chapter."""

from __future__ import annotations

from pathlib import Path

from moulin.errors import OptionsError
from moulin.evaluate.utterance import Utterance
from moulin.manifests.lines import read_lines

TRANSCRIPT_SUFFIXES = (".txt", ".lab")
_CHAPTER = "*.trans.txt"  # lines of ID TEXT


def read_transcribed_folder(folder: Path) -> list[Utterance]:
    """All audio in `folder` and below that has a transcript, ordered by path; ids are paths without their suffix.

    Raises OptionsError where there is audio without one: a score over a part of the recordings would say too much.
    """
    from moulin.audio.source import AUDIO_SUFFIXES

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file())
    said = _chapters(folder)
    utterances, bare = [], []
    for file in files:
        text = said.get((file.parent, file.stem))
        if text is None:
            beside = next((t for s in TRANSCRIPT_SUFFIXES if (t := file.with_suffix(s)).is_file()), None)
            if beside is None:
                bare.append(file)
                continue
            text = " ".join(line for _, line in read_lines(beside))
        utterances.append(Utterance(file, text, file.relative_to(folder).with_suffix("").as_posix()))
    if bare:
        raise OptionsError(
            f"{len(bare)} of the {len(files)} recordings in {folder} have no transcript, the first is {bare[0].name}",
            hint=f"put what is said in each into a file of the same name with {' or '.join(TRANSCRIPT_SUFFIXES)}",
        )
    return utterances


def _chapters(folder: Path) -> dict[tuple[Path, str], str]:
    """The texts of LibriSpeech's transcripts by folder and name."""
    said = {}
    for file in folder.rglob(_CHAPTER):
        for _, line in read_lines(file):
            name, _, text = line.partition(" ")
            said[file.parent, name] = text
    return said
