"""Tables of audio to tables of transcripts: the text of `moulin transcribe`, in any batch."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.audio.source import AudioSource
from moulin.bulk.decode import decode
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS, TRANSCRIBED, transcript_of
from moulin.bulk.transcriber import ENGINE_FAILED, Transcriber, batches
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.transcribe_files import transcribe_in_process
from moulin.transcript import Transcript
from tests.conftest import Recording


def table(*files: object) -> Any:
    return pa.Table.from_pylist([{"id": str(n), "path": str(file)} for n, file in enumerate(files)], RECORDINGS)


def test_the_same_as_moulin_transcribe(tmp_path: Path, recordings: list[Recording]) -> None:
    long = tmp_path / "long.wav"
    gap = np.zeros(20_000, np.float32)
    parts = [part for recording in recordings for part in (recording.waveform, gap)]
    soundfile.write(long, np.concatenate(parts), 16000, "PCM_16")
    files = [str(recording.file) for recording in recordings] + [str(long)]
    transcriber = pickle.loads(pickle.dumps(Transcriber(DEMO_MODEL, batch_sec=25)))
    rows = [row for decoded in decode(table(*files)) for row in transcriber(decoded).to_pylist()]
    transcriber.close()
    expected = transcribe_in_process([AudioSource(file) for file in files], DEMO_MODEL, changes={})
    for row, outcome in zip(rows, expected, strict=True):
        heard = transcript_of(row)
        assert isinstance(outcome.result, Transcript)
        assert heard.text == outcome.result.text
        assert heard.duration_sec == outcome.result.duration_sec
        assert [(w.word, w.start_sec, w.end_sec) for w in heard.words] == [
            (w.word, w.start_sec, w.end_sec) for w in outcome.result.words
        ]


def test_errors_stay_in_their_rows(recordings: list[Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = Transcriber(DEMO_MODEL)
    recognizer = transcriber.open()
    usual = recognizer.transcribe
    cursed = len(recordings[1].waveform)

    def failing(waveforms: Any, options: Any = None) -> Any:
        if any(len(waveform) == cursed for waveform in waveforms):
            raise RuntimeError("out of luck")
        return usual(waveforms, options)

    monkeypatch.setattr(recognizer, "transcribe", failing)
    files = [recordings[0].file, recordings[1].file, "no.wav", recordings[2].file]
    (decoded,) = decode(table(*files))
    heard = transcriber(decoded)
    transcriber.close()
    assert heard.schema == TRANSCRIBED
    good, unlucky, missing, last = heard.to_pylist()
    assert [good["text"], last["text"]] == [recordings[0].text, recordings[2].text]
    assert unlucky["error"] == f"{ENGINE_FAILED}: out of luck"
    assert missing["error"] == "no.wav does not exist, expected an audio file"


def test_options_reach_the_search(recordings: list[Recording]) -> None:
    (decoded,) = decode(table(recordings[0].file))
    (row,) = Transcriber(DEMO_MODEL, options=DecodingOptions(blank_penalty=8.0))(decoded).to_pylist()
    assert row["text"] != recordings[0].text


def test_alternatives_have_no_column() -> None:
    with pytest.raises(OptionsError, match="Expected nbest 1 in bulk, got 3"):
        Transcriber(DEMO_MODEL, options=DecodingOptions(nbest=3))


def test_no_model(tmp_path: Path) -> None:
    (decoded,) = decode(table("no.wav"))
    with pytest.raises((BundleError, EngineError)):
        Transcriber(tmp_path)(decoded)


def test_batches_hold_seconds_of_pieces_of_like_length() -> None:
    waiting = [
        (0, number, np.zeros(samples, np.int16)) for number, samples in enumerate([16000, 48000, 8000, 32000, 0])
    ]
    made = [[len(samples) for _, _, samples in batch] for batch in batches(waiting, 2.5)]
    assert made == [[48000], [32000], [16000, 8000, 0]]
    assert list(batches([], 1.0)) == []
