"""How many words `moulin bulk` hears otherwise than `moulin transcribe`, for it keeps audio in 16 bits: by format.

    python scripts/bulk-16-bits.py

The files are the demo's clips as people have them, at two loudnesses; the model is the demo's, in fp32.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import soxr

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.audio.media import media, wav

from moulin.arrays import Floats
from moulin.audio.source import AudioSource
from moulin.bulk.decode import decode
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.transcriber import Transcriber
from moulin.demo.files import DEMO_MODEL, demo_speech
from moulin.evaluate.wer import count_word_errors
from moulin.transcribe_files import transcribe_in_process

_QUIET = 0.02


def main() -> None:
    """Print a line a format."""
    transcriber = Transcriber(DEMO_MODEL)
    for name in _files(demo_speech()[0]):
        differing = words = 0
        for loudness in (1.0, _QUIET):
            contents = [_files(clip * np.float32(loudness))[name] for clip in demo_speech()]
            with tempfile.TemporaryDirectory() as folder:
                files = [Path(folder) / f"{number}" for number in range(len(contents))]
                for file, content in zip(files, contents, strict=True):
                    file.write_bytes(content)
                heard = [outcome.result.text for outcome in _transcribed(files)]
                rows = pa.table({"id": [file.name for file in files], "path": [str(file) for file in files]})
                texts = [row["text"] for audio in decode(rows) for row in transcriber(audio).to_pylist()]
            for usual, bulk in zip(heard, texts, strict=True):
                differing += count_word_errors(usual, bulk).errors
                words += len(usual.split())
        print(f"{name:22}{differing:4} of {words:,} words differ", flush=True)


def _transcribed(files: list[Path]) -> list:
    return list(transcribe_in_process([AudioSource(str(file)) for file in files], DEMO_MODEL, changes={}))


def _files(speech: Floats) -> dict[str, bytes]:
    wide = soxr.resample(speech, 16000, 44100, quality="HQ").astype(np.float32)
    stereo = np.stack([speech, 0.5 * speech], axis=1)
    return {
        "WAV 16 bits": wav(speech),
        "WAV 24 bits": wav(speech * np.float32(0.7), subtype="PCM_24"),
        "WAV 44.1 kHz stereo": wav(wide, 0.5 * wide, rate=44100),
        "MP3 48 kHz stereo": media("mp3", "libmp3lame", stereo),
        "Opus (Ogg)": media("ogg", "libopus", speech),
    }


if __name__ == "__main__":
    main()
