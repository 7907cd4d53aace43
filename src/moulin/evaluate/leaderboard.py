"""The Open ASR Leaderboard's protocol: every recording of a set once, the longest first, in batches.

The clock runs within the calls, from waveforms in memory to texts: reading, decoding and resampling are left out, as
they are in the leaderboard's own scripts. The first batch, of the longest recordings, is run once before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import OptionsError
from moulin.evaluate.leaderboard_sets import Rows, SetName, sorted_batches, text_of
from moulin.evaluate.results.leaderboard import PublishedRow, SetFigures
from moulin.evaluate.targets.target import Transcribe
from moulin.evaluate.wer import Normalizer, WordErrors, count_word_errors

BATCH_SIZE = 256
PUBLISHED = (
    PublishedRow(
        "fast-gpu-asr, Zipformer 290M transducer",
        18_100,
        0.0526,
        "H200, TensorRT fp16, beam 6, batch 256, sorted within a set, one pass; seven English sets, their own count",
    ),
    PublishedRow("fast-gpu-asr 0.2.0, the same", 18_967, 0.0529, "beam 10; the leaderboard's row, second hand"),
    PublishedRow("fast-gpu-asr 0.2.0, CTC", 20_097, 0.06383, "the leaderboard's row, second hand"),
)
_IGNORED = "ignore time segment in scoring"


def measure_set(
    transcribe: Transcribe,
    rows: Rows,
    name: SetName,
    normalize: Normalizer,
    *,
    batch_size: int = BATCH_SIZE,
    warm_up: bool = True,
    on_batch: Callable[[int, int], None] = lambda _done, _all: None,
) -> SetFigures:
    """Transcribe the set; `on_batch` gets the number of recordings done and of all. Raises OptionsError for an empty
    set, and AudioError for a recording that cannot be decoded: without it the rate would be of another set."""
    said = [text_of(rows[number]) for number in range(len(rows))]
    kept = [number for number, text in enumerate(said) if is_scored(text, normalize)]
    if not kept:
        raise OptionsError(f"The set {name} has no recordings with a reference")
    audio_sec = seconds = 0.0
    done = 0
    errors = WordErrors()
    for batch in sorted_batches(rows, kept, batch_size):
        waveforms = [waveform for _, waveform in batch]
        if warm_up and not done:
            transcribe(waveforms)
        started = time.perf_counter()
        texts = transcribe(waveforms)
        seconds += time.perf_counter() - started
        audio_sec += sum(map(len, waveforms)) / SAMPLE_RATE
        errors = sum(_errors([said[number] for number, _ in batch], texts, normalize), errors)
        done += len(batch)
        on_batch(done, len(kept))
    rtfx = round(audio_sec / seconds, 2)
    return SetFigures(str(name), done, round(audio_sec, 2), round(seconds, 4), rtfx, errors.figures())


def is_scored(text: str, normalize: Normalizer) -> bool:
    """Whether the leaderboard scores a recording with this reference."""
    normal = normalize(text).strip()
    return normal not in ("", _IGNORED)


def _errors(said: Sequence[str], heard: Sequence[str], normalize: Normalizer) -> list[WordErrors]:
    return [count_word_errors(a, b, normalize=normalize) for a, b in zip(said, heard, strict=True)]
