"""CPU time of the search and of whole transcriptions by the share of frames that --blank-skip drops, as ratios to none.

PYTHONPATH=. .venv/bin/python scripts/blank-skip-speed.py, which takes the tiny test model with random weights.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.engine.blank_bias import OFFLINE, SHARES, THRESHOLD, Utterance, bias_for, raised_export

from moulin.audio.decode import read_audio
from moulin.decoding.options import METHODS, DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.recognizer import Recognizer
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer

PAIRS = 5
WAVEFORMS = [read_audio(clip.audio) for clip in demo_clips()[:4]]


def main() -> None:
    log_probs = np.concatenate([Utterance(waveform).log_probs for waveform in WAVEFORMS])
    for share in SHARES:
        with tempfile.TemporaryDirectory() as folder:
            model = raised_export(OFFLINE, bias_for(share, log_probs), Path(folder) / "model")
            with open_recognizer(model, EngineChoice(threads=1)) as recognizer:
                print(f"{share:.0%}", *ratios(recognizer), flush=True)


def ratios(recognizer: Recognizer) -> list[str]:
    """For each method that of the search and of all of it."""
    pipeline = recognizer.pipeline
    assert isinstance(pipeline, HostPipeline)
    encoded = pipeline.encode(pipeline.features(WAVEFORMS))
    found = []
    for method in METHODS:

        def searched(skip: float | None, method: str = method) -> None:
            options = RowOptions.of([DecodingOptions(method, blank_skip=skip)] * len(WAVEFORMS))
            search(pipeline.runner, *encoded, options, recognizer.spec.joiner_dim)

        def transcribed(skip: float | None, method: str = method) -> None:
            recognizer.transcribe(WAVEFORMS, [DecodingOptions(method, blank_skip=skip)] * len(WAVEFORMS))

        found += [f"{method} search {paired(searched):.2f}", f"whole {paired(transcribed):.2f}"]
    return found


def paired(run: Callable[[float | None], None]) -> float:
    """The median ratio of CPU times, each pair in the other order than the one before."""
    seconds: dict[float | None, float] = {}
    found = []
    for number in range(PAIRS + 1):
        for skip in (THRESHOLD, None) if number % 2 else (None, THRESHOLD):
            begun = time.process_time()
            run(skip)
            seconds[skip] = time.process_time() - begun
        found.append(seconds[THRESHOLD] / seconds[None])
    return statistics.median(found[1:])  # the first warms up


if __name__ == "__main__":
    main()
