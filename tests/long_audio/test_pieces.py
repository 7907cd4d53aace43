"""Recordings as pieces, with the real voice activity detector and real speech."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.audio.decode import audio_blocks
from moulin.audio.timeline import Skip
from moulin.demo.files import DEMO_MODEL
from moulin.errors import AudioError
from moulin.long_audio.cutter import Piece
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.long_audio.pieces import Pieces
from moulin.long_audio.voice_activity import FRAME_SAMPLES, VoiceActivity
from moulin.models.open_recognizer import open_recognizer
from tests.conftest import Recording


def blocks(waveform: Floats, size: int = 4096) -> Iterator[Floats]:
    return (waveform[at : at + size] for at in range(0, len(waveform), size))


def silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * 16000), np.float32)


def test_voice_activity_hears_speech_in_any_blocks(recordings: list[Recording]) -> None:
    speech = recordings[6].waveform[: len(recordings[6].waveform) // FRAME_SAMPLES * FRAME_SAMPLES]
    whole = VoiceActivity()(speech)
    assert whole.shape == (len(speech) // FRAME_SAMPLES,)
    assert np.median(whole[15:150]) > 0.9
    assert VoiceActivity()(silence(FRAME_SAMPLES / 16000 * 50)).max() < 0.1
    piecewise = VoiceActivity()
    parts = [piecewise(speech[at : at + FRAME_SAMPLES * 7]) for at in range(0, len(speech), FRAME_SAMPLES * 7)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 511, 48000])
def test_what_a_model_takes_at_once_is_one_piece_whatever_is_in_it(length: int) -> None:
    pieces = Pieces(blocks(np.zeros(length, np.float32)), max_utterance_sec=3.0)
    (piece,) = pieces
    assert (piece.start_samples, len(piece.waveform), pieces.decoded_sec) == (0, length, length / 16000)


def test_a_sample_more_is_cut() -> None:
    pieces = Pieces(blocks(np.zeros(48001, np.float32)), max_utterance_sec=3.0)
    assert list(pieces) == []
    assert pieces.decoded_sec == 48001 / 16000


def test_who_stops_early_leaves_no_file_open(recordings: list[Recording], tmp_path: Path) -> None:
    """Without waiting for the garbage collector."""
    soundfile.write(tmp_path / "a.wav", np.tile(recordings[0].waveform, 2), 16000)
    pieces = Pieces(audio_blocks(tmp_path / "a.wav"), max_utterance_sec=6.0)
    next(pieces)
    gc.disable()
    try:
        del pieces
        assert str(tmp_path / "a.wav") not in [str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir()]
    finally:
        gc.enable()


def test_an_error_on_the_way_comes_when_it_is_reached(recordings: list[Recording]) -> None:
    def broken() -> Iterator[Floats]:
        yield recordings[0].waveform
        yield silence(5)
        raise AudioError("broken here")

    pieces = Pieces(broken(), max_utterance_sec=6.0)
    assert next(pieces).start_sec < 1
    with pytest.raises(AudioError, match="broken here"):
        list(pieces)


@pytest.mark.parametrize("disturbance", ["0.5", "-0.3", "step", "drift", "slow wave"])
def test_a_constant_level_hides_no_speech(recordings: list[Recording], disturbance: str) -> None:
    """52 s, which is cut: with 0.5 added, the detector heard next to nothing."""
    speech = np.concatenate([recording.waveform for recording in recordings[:7]]) * np.float32(0.5)
    seconds = np.arange(len(speech)) / 16000
    level = {
        "0.5": np.full(len(speech), 0.5),
        "-0.3": np.full(len(speech), -0.3),
        "step": np.where(seconds < 20, 0.0, 0.4),
        "drift": 0.01 * seconds - 0.25,
        "slow wave": 0.3 * np.sin(2 * np.pi * 0.2 * seconds),
    }[disturbance]
    plain = list(Pieces(blocks(speech), max_utterance_sec=40.0))
    disturbed = list(Pieces(blocks((speech + level).astype(np.float32)), max_utterance_sec=40.0))

    def covered(pieces: list[Piece]) -> float:
        return sum(piece.end_sec - piece.start_sec for piece in pieces)

    assert covered(disturbed) == pytest.approx(covered(plain), abs=1.0)


def test_what_is_skipped_separates_pieces_and_keeps_times(recordings: list[Recording]) -> None:
    speech = recordings[0].waveform
    parts: list[Floats | Skip] = [speech, Skip(16000 * 100), speech, Skip(16000)]
    pieces = Pieces(iter(parts), max_utterance_sec=40.0)
    assert [(piece.start_sec, len(piece.waveform)) for piece in pieces] == [
        *((0.0, len(speech)), (len(speech) / 16000 + 100, len(speech)))
    ]
    assert pieces.decoded_sec == pytest.approx(2 * len(speech) / 16000 + 101)


def test_joined_clips_are_heard_as_well_as_single_ones(recordings: list[Recording]) -> None:
    """Against what was said: a model hears a word here and there differently when it begins a little earlier."""
    kaldialign = pytest.importorskip("kaldialign")
    joined_audio = np.concatenate([part for recording in recordings for part in (recording.waveform, silence(2.0))])
    pieces = Pieces(blocks(joined_audio), max_utterance_sec=40.0)
    found = list(pieces)
    assert all(piece.end_sec - piece.start_sec <= 30.0 for piece in found)
    joined = JoinedTranscript()
    with open_recognizer(DEMO_MODEL) as recognizer:
        for piece, heard in zip(found, recognizer.transcribe([piece.waveform for piece in found]), strict=True):
            joined.add(piece, heard)
    said = " ".join(recording.said for recording in recordings).split()
    apart = " ".join(recording.text for recording in recordings).split()
    errors = kaldialign.edit_distance(said, joined.text.split())["total"]
    assert errors <= kaldialign.edit_distance(said, apart)["total"]

    # Every word that was heard in a clip by itself lies in a piece, so that the model got to hear it.
    start_sec = 0.0
    for recording in recordings:
        for word in recording.heard.words:
            at = start_sec + word.start_sec
            assert any(piece.start_sec <= at <= piece.end_sec for piece in found), (recording.file, word)
        start_sec += len(recording.waveform) / 16000 + 2.0

    transcript = joined.transcript(pieces.decoded_sec)
    assert transcript.duration_sec == pytest.approx(len(joined_audio) / 16000, abs=0.001)
    starts = [word.start_sec for word in transcript.words]
    assert starts == sorted(starts)
    assert " ".join(word.word for word in transcript.words) == transcript.text
