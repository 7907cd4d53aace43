"""`moulin bulk`: a manifest or a folder to parts with its transcripts, resumable; and how far a job is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moulin.audio.selection import Selection
from moulin.cli.bulk_progress import ProgressForm, duration, shown_progress
from moulin.cli.flags import with_flags, without
from moulin.cli.hotwords import HOTWORDS, changed_hotwords
from moulin.cli.interrupt import interrupts
from moulin.cli.messages import say
from moulin.cli.verbs import VerbApp, Verbs
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice

if TYPE_CHECKING:
    from moulin.bulk.ray.plan import RayChoice
    from moulin.bulk.run import Ended

ExecutorName = Literal["local", "ray"]
CutPlace = Literal["decoders", "engine"]

_WRITING_SEC = 30.0
"""What Ctrl-C leaves for the part that is open; a second one ends the command at once."""

STOPPED_STATUS = 143
"""The exit status after SIGTERM, as of a process that it ends."""


class _RunByDefault(Verbs):
    """`moulin bulk MANIFEST …` is `moulin bulk run MANIFEST …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = VerbApp(
    name="bulk",
    cls=_RunByDefault,
    help="Transcribe any number of recordings into parts: resumable, each recording once.",
    epilog="Example: moulin bulk calls.jsonl --to transcripts --model path/to/model --device cuda:all. "
    "Its options: moulin bulk run --help",
)


@app.command(
    no_args_is_help=True, epilog="Example: moulin bulk run calls.jsonl --to transcripts --model models/zipformer"
)
@with_flags
def run(
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|FOLDER", help="JSONL, parquet, CSV, Lhotse, Kaldi, a list, or a folder.")
    ],
    to: Annotated[Path, typer.Option(help="The folder of the job. A run goes on with what is missing there.")],
    model: Annotated[Path, typer.Option(help="An offline model, as of moulin transcribe.")],
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:N, a list such as cuda:0,cuda:1, or cuda:all: a process each.")
    ] = "cpu",
    executor: Annotated[
        ExecutorName, typer.Option(help="What does the work: this machine, or a cluster of Ray's.")
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto", show_default=False, help="Ray's cluster.  [default: one on this machine]"
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Cards of Ray's cluster.  [default: all of them]")
    ] = None,
    actors_per_gpu: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Models on each card of Ray's.  [default: 1]")
    ] = None,
    engines_per_gpu: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=False,
            help="Processes with the model on each card of this machine.  [default: 2; 1 with few cores]",
        ),
    ] = None,
    decoders: Annotated[
        int | None,
        typer.Option(
            min=1, show_default=False, help="Processes that decode.  [default: the free cores; on a CPU half of them]"
        ),
    ] = None,
    cut: Annotated[
        CutPlace,
        typer.Option(help="Where long recordings are cut: one by one when decoded, or many at once by the engine."),
    ] = "decoders",
    part_hours: Annotated[
        float, typer.Option(min=0.001, help="Hours of audio in a part; written after ten minutes at the latest.")
    ] = 20.0,
    format: Annotated[  # the flag's name
        str, typer.Option(metavar="parquet|jsonl|lhotse|srt", help="What parts are; srt also writes a file each.")
    ] = "parquet",
    shard: Annotated[str, typer.Option(metavar="K/N", help="The Kth of N shares, for arrays of jobs.")] = "1/1",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try those with errors again, no others.")
    ] = False,
    progress: Annotated[ProgressForm, typer.Option(help="How to show it; json goes to standard output.")] = "auto",
    hotwords: Annotated[str | None, HOTWORDS] = None,
    language: Annotated[str | None, typer.Option(help="Which one, where a model has several.")] = None,
    *,
    selection: Selection,
    engine: Annotated[EngineChoice, without("device", "cuda_graphs")],
    decoding: Annotated[DecodingOptions, without("nbest", "lm_scale", "lodr_scale")],
) -> None:
    """Transcribe what a manifest or a folder lists, into parts that appear complete.

    Run it again after whatever stopped it: recordings that are in a part are not transcribed again. A recording that
    cannot be transcribed has an error in its row. SIGTERM and Ctrl-C write what is done; the exit status is 0 when
    every recording has a row, with --retry-failed when each with an error was tried.
    """
    from dataclasses import replace

    from moulin.bulk.output.formats import format_named
    from moulin.bulk.output.parts import Shard
    from moulin.bulk.run import BulkRun, run_bulk
    from moulin.cli.runnable_model import runnable_model
    from moulin.engine.device import device_list
    from moulin.models.load_for_engine import load_for_engine

    wanted = format_named(format)
    cluster = _cluster(executor, ray_address, gpus, actors_per_gpu)
    if cluster is not None and engines_per_gpu is not None:
        raise OptionsError("--engines-per-gpu is an option of --executor local", hint="--actors-per-gpu is Ray's")
    if gpus is not None and device == "cpu":
        device = "cuda"
    if cluster is not None and device not in ("cpu", "cuda"):
        raise OptionsError(
            f"Expected --device cpu or cuda with --executor ray, got {device!r}",
            hint="Ray gives out the cards: --gpus N",
        )
    devices = device_list(device)
    engine = replace(engine, device=devices[0])
    files = runnable_model(model, engine, streaming=False, language=language)
    if engine.kind == "auto":  # the same for every machine that works on it
        settled = load_for_engine(files, engine, "offline")[1]
        engine = replace(engine, kind=settled.kind, precision=settled.precision)
    bulk = BulkRun(
        source,
        to,
        files,
        devices,
        engine,
        decoding.updated(changed_hotwords(hotwords)),
        selection,
        wanted,
        decoders,
        part_hours,
        Shard.of(shard),
        retry_failed,
        cluster,
        cut,
        engines_per_gpu,
    )
    interrupts.allow(_WRITING_SEC)
    with shown_progress(progress) as shown:
        ended = run_bulk(bulk, shown)
        if progress == "json":
            typer.echo(json.dumps(ended.state.to_dict()))
    say(_said(ended, to))
    if retry_failed and ended.is_complete and ended.state.done < ended.state.total:
        say("--retry-failed leaves what was never tried: run it again without")
    if not ended.is_complete:
        raise typer.Exit(STOPPED_STATUS)


def _cluster(
    executor: ExecutorName, address: str | None, gpus: int | None, actors_per_gpu: int | None
) -> RayChoice | None:
    """The choice of a cluster; None for this machine. Raises OptionsError for flags of the other executor."""
    from moulin.bulk.ray.plan import RayChoice

    if executor == "ray":
        return RayChoice(address, gpus, actors_per_gpu or 1)
    given = {"--ray-address": address, "--gpus": gpus, "--actors-per-gpu": actors_per_gpu}
    for flag, value in given.items():
        if value is not None:
            raise OptionsError(f"{flag} is an option of --executor ray", hint="--device lists this machine's cards")
    return None


@app.command(no_args_is_help=True, epilog="Example: moulin bulk status transcripts")
def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a job.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print an object of JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page: throughput, failures, slowest recordings.")
    ] = None,
) -> None:
    """Count what of a job is done, has failed and is missing, and why."""
    from moulin.bulk.status import status_of

    if html is not None:
        _write_page(folder, html)
        return
    found = status_of(folder)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    missing = "unknown" if found.missing is None else f"{found.missing:,}"
    typer.echo(f"done     {found.done:,} in {found.parts:,} part{'s'[: found.parts != 1]}, by {found.model}")
    typer.echo(f"failed   {found.failed:,}")
    typer.echo(f"missing  {missing}")
    if found.others:
        typer.echo(f"others   {found.others:,} in parts that the last run's manifest does not name")
    for kind, count in found.kinds.most_common(20):
        typer.echo(f"  {count:>8,}  {kind}")


def _write_page(folder: Path, file: Path) -> None:
    from moulin.bulk.figures import figures_of
    from moulin.evaluate.pages.bulk_job import bulk_document
    from moulin.evaluate.pages.html import page

    file.write_text(page(bulk_document(figures_of(folder), str(folder))), encoding="utf-8")
    typer.echo(file)


def _said(ended: Ended, to: Path) -> str:
    state = ended.state
    if not state.audio_hours and state.done == state.total and not state.parts:
        return f"Nothing is missing: all {state.total:,} recordings are done"
    failed = f", {state.failed:,} of them failed (moulin bulk status {to} says why)" if state.failed else ""
    done = "All" if state.done == state.total else f"{state.done:,} of"
    return (
        f"{done} {state.total:,} recordings are done{failed}; {state.audio_hours:,.2f} h of audio in "
        f"{duration(state.elapsed_sec)}"
    )
