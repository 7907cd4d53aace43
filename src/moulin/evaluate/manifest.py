"""Recordings to measure on, with their transcripts, in the common forms of manifests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moulin.demo.files import DEMO_MANIFEST
from moulin.errors import OptionsError
from moulin.evaluate.utterance import Utterance

FORMS = (
    "JSONL with audio and text, Lhotse cuts or recordings and supervisions, Kaldi's wav.scp and text, or a folder of "
    "audio with a transcript beside each file"
)


def read_manifest(source: Path, text: Path | None = None) -> list[Utterance]:
    """The recordings that `source` lists: a file or a folder in one of FORMS, told apart by what is in it.

    `text` holds the transcripts where they are in another file: Lhotse's supervisions, Kaldi's text; by default the
    one beside `source`. Paths are relative to the manifest's folder (Kaldi's and Lhotse's also to the current one).
    Raises OptionsError where something cannot be read, and where audio files are missing.
    """
    from moulin.evaluate.manifests import kaldi, lhotse_manifest, transcribed_folder
    from moulin.evaluate.manifests.jsonl import read_jsonl
    from moulin.manifests import lhotse_entry

    if source.is_dir():
        if (source / "wav.scp").is_file():
            utterances = kaldi.read_kaldi(source / "wav.scp", text)
        elif (listed := lhotse_entry.find_in(source)) is not None:
            utterances = lhotse_manifest.read_lhotse(listed, text)
        elif (source / "manifest.jsonl").is_file():
            utterances = read_jsonl(source / "manifest.jsonl")
        else:
            utterances = transcribed_folder.read_transcribed_folder(source)
    elif not source.exists():
        raise OptionsError(f"{source} does not exist", hint=f"expected {FORMS}")
    elif source.suffix == ".scp":
        utterances = kaldi.read_kaldi(source, text)
    elif lhotse_entry.is_lhotse(source):
        utterances = lhotse_manifest.read_lhotse(source, text)
    else:
        utterances = read_jsonl(source)
    if not utterances:
        raise OptionsError(f"{source} names no recordings")
    return _checked(source, _with_ids(utterances))


def demo_clips() -> list[Utterance]:
    """The recordings that come with moulin, with their transcripts."""
    return read_manifest(DEMO_MANIFEST)


def _with_ids(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Every utterance with an id: its own, or its file's name, with a number where that occurs again."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    named = []
    for utterance in utterances:
        name = utterance.id or utterance.audio.stem
        seen[name] = seen.get(name, 0) + 1
        named.append(replace(utterance, id=name if seen[name] == 1 else f"{name}#{seen[name]}"))
    return named


def _checked(source: Path, utterances: list[Utterance]) -> list[Utterance]:
    missing = [utterance.audio for utterance in utterances if utterance.load is None and not utterance.audio.is_file()]
    if missing:
        raise OptionsError(
            f"{len(missing)} of the {len(utterances)} recordings of {source} are missing, the first is {missing[0]}",
            hint="paths are relative to the manifest's folder",
        )
    return utterances
