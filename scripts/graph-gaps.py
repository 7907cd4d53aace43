"""Launches and gaps of one utterance on the GPU engine: what the card does from the samples to the tokens.

    python scripts/graph-gaps.py --size zipformer2-66m --seconds 11 [--beam 4]

Prints the number of kernels and copies, the time in which the card is busy and idle between the first and the last, the
kernels that take the most time by name, and the longest gaps with what is before and behind them.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path

_NAMES, _GAPS = 25, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="zipformer2-66m")
    parser.add_argument("--model", type=Path, help="a checkpoint or ONNX files, instead of random weights")
    parser.add_argument("--seconds", type=float, default=11.0)
    parser.add_argument("--beam", type=int, default=0, help="0 is greedy search")
    asked = parser.parse_args()
    from moulin.decoding.options import DecodingOptions
    from moulin.evaluate.gpu_benchmark import Corpus, gpu_spans
    from moulin.evaluate.speaking_model import write_speaking_model
    from moulin.models.engine_choice import EngineChoice
    from moulin.models.open_recognizer import open_recognizer

    options = DecodingOptions("modified_beam_search", asked.beam) if asked.beam else DecodingOptions()
    with tempfile.TemporaryDirectory() as place:
        if asked.model is None:
            write_speaking_model(asked.size, Path(place), streaming=False, device="cuda")
        recognizer = open_recognizer(asked.model or Path(place), EngineChoice(device="cuda"))
    recognizer.pipeline.capture_all()
    waveforms = Corpus().of_length(1, round(asked.seconds * 16_000))
    for _ in range(5):
        recognizer.transcribe(waveforms, [options])
    at = time.perf_counter()
    for _ in range(20):
        recognizer.transcribe(waveforms, [options])
    print(f"{1e3 * (time.perf_counter() - at) / 20:.3f} ms a call, {asked.seconds:g} s of audio, {options.method}")
    show(gpu_spans(lambda: recognizer.transcribe(waveforms, [options])))
    recognizer.close()


def show(spans: list[tuple[str, float, float]]) -> None:
    """Print what `spans`, (name, begin, end) in microseconds, are made of."""
    spans = sorted(spans, key=lambda span: span[1])
    whole = max(end for _, _, end in spans) - spans[0][1]
    gaps, until, last = [], spans[0][2], spans[0][0]
    for name, begin, end in spans[1:]:
        if begin > until:
            gaps.append((begin - until, last, name))
        if end > until:
            until, last = end, name
    idle = sum(gap for gap, _, _ in gaps)
    print(f"{len(spans)} kernels and copies in {whole:.0f} us: busy {whole - idle:.0f}, {len(gaps)} gaps of {idle:.0f}")
    times: dict[str, list[float]] = defaultdict(list)
    for name, begin, end in spans:
        times[_short(name)].append(end - begin)
    for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))[:_NAMES]:
        print(f"{sum(each):8.0f} us {len(each):5} x {sum(each) / len(each):7.1f}  {name}")
    for gap, before, behind in sorted(gaps, reverse=True)[:_GAPS]:
        print(f"{gap:8.1f} us between {_short(before)} and {_short(behind)}")


def _short(name: str) -> str:
    return re.sub(r"<.*|\(.*", "", name).removeprefix("void ")[:60]


if __name__ == "__main__":
    main()
