"""How many seconds of audio one core decodes in a second of CPU time, by format: `python scripts/decode-speed.py`.

The files are ten minutes of the demo's clips, made in a temporary folder by PyAV and soundfile. The timer has all that
a recording goes through before the voice detector: decoding, mixing, resampling to 16 kHz, checks. Beside it stands
what PyAV takes for the same file, in turn: decoding, and its resampler to 16-bit samples of one channel.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
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
        "M4A 16 kHz mono": media("ipod", "aac", speech, rate=16000),
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
            runs = [(_cpu_sec(_ours, file), _cpu_sec(_by_pyav, file)) for _ in range(_RUNS)]
            ours, pyavs = (round(len(speech) / 16000 / min(times)) for times in zip(*runs, strict=True))
            figures[name] = {"moulin": ours, "pyav": pyavs}
            print(f"{name:24}{ours:8,} times real time, PyAV{pyavs:8,}", flush=True)
    print(json.dumps(figures))


def _ours(file: Path) -> None:
    for _ in Recording(str(file)):
        pass


def _by_pyav(file: Path) -> None:
    resampler = av.AudioResampler("s16", "mono", 16000)
    with av.open(str(file)) as container:
        for frame in container.decode(audio=0):
            for resampled in resampler.resample(frame):
                resampled.to_ndarray()
        for resampled in resampler.resample(None):
            resampled.to_ndarray()


def _cpu_sec(decode: Callable[[Path], None], file: Path) -> float:
    started = time.process_time()
    decode(file)
    return time.process_time() - started


if __name__ == "__main__":
    main()
