"""`moulin bench`: measurements that others can repeat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moulin.cli import bench_encoder, bench_streaming
from moulin.cli.arguments import DeviceOption, PrecisionOption

app = typer.Typer(
    help="Measure, beside a peer in the same run.",
    epilog="Example: moulin bench streaming --streams 16,32,64",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DEFAULT_TARGETS = "moulin,moulin-triton,sherpa-onnx-batch1,sherpa-onnx-batch4,sherpa-onnx-batch16,sherpa-onnx-threads"


@app.command(epilog="Example: moulin bench offline --model models/zipformer --data test/manifest.jsonl --rounds 7")
def offline(
    model: Annotated[Path | None, typer.Option(help="The model's folder.  [default: the demo model]")] = None,
    data: Annotated[
        Path | None, typer.Option(help="JSONL with audio and text.  [default: the demo recordings]")
    ] = None,
    targets: Annotated[str, typer.Option(help="What to measure, separated by commas.")] = _DEFAULT_TARGETS,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of every target.  [default: all]")] = None,
    device: DeviceOption = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds through all targets.")] = 5,
    repeat: Annotated[int, typer.Option(min=1, help="How often each recording occurs in a round.")] = 1,
    precision: PrecisionOption = None,
    to: Annotated[Path | None, typer.Option(help="Write the raw figures into this JSON file.")] = None,
) -> None:
    """Throughput (RTFx: audio seconds a second) and word error rate of whole recordings.

    Words are compared in upper case; OH counts as ZERO.
    """
    import os

    from moulin.bundle.load import load_bundle
    from moulin.demo.files import DEMO_MANIFEST, DEMO_MODEL
    from moulin.evaluate.manifest import read_manifest
    from moulin.evaluate.offline_benchmark import benchmark_offline
    from moulin.evaluate.report import write_report
    from moulin.evaluate.wer import digits_spelled_alike

    threads = threads or len(os.sched_getaffinity(0))
    spec = load_bundle(model or DEMO_MODEL, precision=precision, expect="offline")
    results = benchmark_offline(
        spec,
        read_manifest(data or DEMO_MANIFEST),
        targets.split(","),
        threads=threads,
        device=device,
        rounds=rounds,
        repeat=repeat,
        normalize=digits_spelled_alike,
    )
    for result in results:
        low, high = (result.audio_sec / seconds for seconds in (max(result.seconds), min(result.seconds)))
        typer.echo(
            f"{result.name:20}  RTFx {result.rtfx:7.1f}  ({low:.1f} to {high:.1f})  WER {result.word_errors.rate:.2%}"
        )
    if to is not None:
        figures = {
            "threads": threads,
            "device": device,
            "repeat": repeat,
            "audio_sec": round(results[0].audio_sec, 2),
            "targets": [result.to_dict() for result in results],
        }
        write_report(to, sys.argv[1:], spec, figures)


bench_encoder.add_to(app)
bench_streaming.add_to(app)
