"""How many seconds of audio one core decodes in a second of CPU time, by format: `python scripts/decode-speed.py`.

The files are ten minutes of the demo's clips, made in a temporary folder by PyAV and soundfile. The timer has all that
a recording goes through before the voice detector: decoding, mixing, resampling to 16 kHz, checks.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.audio.media import media, wav

from moulin.audio.recording import Recording
from moulin.demo.files import demo_speech

_REPEATS = 6
_RUNS = 3


def main() -> None:
    """Print a line a format, and all figures as JSON in the end."""
    import soxr

    speech = np.concatenate(demo_speech() * _REPEATS)
    wide = soxr.resample(speech, 16000, 48000, quality="HQ").astype(np.float32)
    stereo = np.stack([speech, speech], axis=1)
    files = {
        "WAV 16 kHz": wav(speech),
        "WAV 48 kHz stereo": wav(wide, wide, rate=48000),
        "FLAC 16 kHz": wav(speech, format="FLAC"),
        "FLAC 48 kHz stereo": wav(wide, wide, rate=48000, format="FLAC"),
        "MP3 16 kHz mono": media("mp3", "libmp3lame", speech, rate=16000),
        "MP3 48 kHz stereo": media("mp3", "libmp3lame", stereo),
        "M4A 48 kHz stereo": media("ipod", "aac", stereo),
        "Opus (Ogg)": media("ogg", "libopus", speech),
        "Opus (WebM)": media("webm", "libopus", speech),
        "Vorbis 48 kHz stereo": wav(wide, wide, rate=48000, format="OGG", subtype="VORBIS"),
    }
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            file = Path(folder) / "speech"
            file.write_bytes(content)
            cpu_sec = min(_cpu_sec(file) for _ in range(_RUNS))
            figures[name] = round(len(speech) / 16000 / cpu_sec)
            print(f"{name:24}{figures[name]:8,} times real time", flush=True)
    print(json.dumps(figures))


def _cpu_sec(file: Path) -> float:
    started = time.process_time()
    for _ in Recording(str(file)):
        pass
    return time.process_time() - started


if __name__ == "__main__":
    main()
