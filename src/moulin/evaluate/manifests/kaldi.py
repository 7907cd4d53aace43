"""Kaldi's data folder: `wav.scp` (or `segments` of it) and `text`."""

from __future__ import annotations

from pathlib import Path

from moulin.errors import OptionsError
from moulin.evaluate.utterance import Utterance
from moulin.manifests.kaldi_tables import archive_error, check_audio, read_segment, read_table


def read_kaldi(wav_scp: Path, text: Path | None = None) -> list[Utterance]:
    """The utterances of `text` (by default the file of that name beside `wav_scp`), in its order.

    With a file `segments` beside, utterances are pieces of the recordings. Commands (`sox … |`) and archives
    (`FILE.ark:OFFSET`) are refused: a list of files to measure on does not get to run programs. Raises OptionsError.
    """
    folder = wav_scp.parent
    recordings = {key: _audio(wav_scp, number, key, value) for key, (number, value) in read_table(wav_scp).items()}
    segments_file = folder / "segments"
    segments = read_table(segments_file) if segments_file.is_file() else None
    text = text or folder / "text"
    utterances = []
    for key, (number, said) in read_table(text).items():
        if segments is None:
            recording, start_sec, duration_sec = key, 0.0, None
        elif key in segments:
            recording, start_sec, duration_sec = read_segment(segments_file, *segments[key])
        else:
            raise OptionsError(f"{key!r} on line {number} of {text} is not in {segments_file}")
        if recording not in recordings:
            raise OptionsError(f"{recording!r}, which {text} names on line {number}, is not in {wav_scp}")
        utterances.append(Utterance(recordings[recording], said, key, start_sec, duration_sec))
    return utterances


def _audio(wav_scp: Path, number: int, key: str, value: str) -> Path:
    check_audio(wav_scp, number, key, value)
    file = Path(value)
    beside = wav_scp.parent / file
    if not file.is_file() and not beside.is_file() and ".ark:" in value:
        raise archive_error(wav_scp, number, key, value)
    # Kaldi's paths are relative to where its scripts run, most others to the list itself.
    return beside if beside.is_file() else file
