"""How many seconds of audio one core decodes in a second of CPU time, by format, and in how many it finds speech:
`python scripts/decode-speed.py [RESULT.json]`.

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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.audio.media import media, wav

from moulin.arrays import Floats
from moulin.audio.recording import Recording
from moulin.demo.files import demo_speech
from moulin.evaluate.machine import machine, versions
from moulin.long_audio.voice_activity import FRAME_SAMPLES, VoiceActivity

_REPEATS = 6
_RUNS = 3


def main() -> None:
    """Print a line a format; figures go as JSON to standard output or, with the machine, into a file."""
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
    voice = round(len(speech) / 16000 / min(_cpu_sec(_voice_activity, speech) for _ in range(_RUNS)))
    print(f"{'voice activity':24}{voice:8,} times real time")
    if len(sys.argv) == 1:
        print(json.dumps({**figures, "voice_activity": voice}))
        return
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "command": "python scripts/decode-speed.py RESULT.json",
        "kind": "decoding",
        "what": "seconds of audio in a second of CPU time of one core, the best of three runs",
        "formats": figures,
        "voice_activity": voice,
    }
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")


def _voice_activity(speech: Floats) -> None:
    """In blocks of 2 s, as recordings are cut."""
    find = VoiceActivity()
    step = 62 * FRAME_SAMPLES
    for begin in range(0, len(speech) // step * step, step):
        find(speech[begin : begin + step])


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


def _cpu_sec(work: Callable[[Any], None], of: Any) -> float:
    started = time.process_time()
    work(of)
    return time.process_time() - started


if __name__ == "__main__":
    main()
