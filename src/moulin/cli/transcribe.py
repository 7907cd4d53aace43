"""`moulin transcribe`: files in, text, JSON or subtitles out."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moulin.audio.selection import Selection
from moulin.cli.flags import ChangesOf, with_flags, without
from moulin.cli.hotwords import HOTWORDS, changed_hotwords
from moulin.cli.interrupt import unfinished
from moulin.cli.messages import echo, say, show_error, warn
from moulin.cli.recognized_by import RecognizedBy
from moulin.decoding.options import DecodingOptions
from moulin.errors import MoulinError, OptionsError
from moulin.quoting import without_controls
from moulin.transcript import Part
from moulin.transcript_formats import SUBTITLES, to_json

if TYPE_CHECKING:
    from moulin.audio.source import AudioSource
    from moulin.outcome import Outcome


def add_to(app: typer.Typer) -> None:
    app.command(
        name="transcribe",
        epilog="Example: moulin transcribe calls/ --format json > calls.jsonl",
        no_args_is_help=True,
    )(transcribe)


@with_flags
def transcribe(
    files: Annotated[list[str], typer.Argument(metavar="FILES|FOLDERS", help="Audio, folders of it, or - (stdin).")],
    format: Annotated[  # the flag's name
        Literal["text", "json", "srt", "vtt"], typer.Option(help="What to print.")
    ] = "text",
    to: Annotated[Path | None, typer.Option(help="Write a file for each recording into this folder instead.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Requests under way at once, or CPU threads with --model.")] = 8,
    raw: Annotated[
        str | None, typer.Option(metavar="ENCODING:RATE[:CHANNELS]", help="The files are headerless, e.g. s16le:8000.")
    ] = None,
    hotwords: Annotated[str | None, HOTWORDS] = None,
    *,
    selection: Selection,
    by: Annotated[RecognizedBy, without("threads", "cuda_graphs")],
    changes: Annotated[dict[str, Any], ChangesOf(DecodingOptions, "the server's")],
) -> None:
    """Transcribe recordings of any format, rate, channel count and length; long ones are cut at silences.

    One file prints its text; several print FILE<TAB>TEXT. JSON is an object a line: file, text, words, duration_sec.
    A file that cannot be transcribed is reported and skipped, and the exit status is then 1. After several
    files a line says how fast it was.
    """
    from moulin.audio.source import find_sources, parse_raw_format
    from moulin.cli.transcribing_progress import transcribing_progress
    from moulin.cli.transcribing_tally import Tally
    from moulin.transcribe_files import transcribe_in_process, transcribe_on_gateway, transcribe_on_server

    changes |= changed_hotwords(hotwords)
    sources = find_sources(files, parse_raw_format(raw) if raw else None, selection, on_skipped=_say_skipped)
    if format in SUBTITLES and to is None and len(sources) > 1:
        raise OptionsError(f"Subtitles of {len(sources)} recordings do not go into one file", hint="add --to FOLDER")

    if to is not None:
        _check_folder(to, sources)

    model, gateway = by.runnable(streaming=False), by.gateway
    tally = Tally()
    with transcribing_progress(sources) as progress, by.explained():
        if model is not None:
            engine = replace(by.engine, threads=min(jobs, _cpus()))
            outcomes = transcribe_in_process(
                sources, model, engine, changes=changes, lm=by.lm, on_progress=progress.heard
            )
        elif gateway is not None:
            outcomes = transcribe_on_gateway(
                sources, gateway, model=by.name, changes=changes, jobs=jobs, on_progress=progress.heard
            )
        else:
            outcomes = transcribe_on_server(
                sources, by.address, model=by.served_name, changes=changes, jobs=jobs, on_progress=progress.heard
            )
        for outcome in outcomes:
            progress.ended(outcome.source)
            tally.add(outcome)
            name = without_controls(outcome.source.name)
            if isinstance(outcome.result, MoulinError):
                show_error(outcome.result, about=name)
            else:
                for warning in outcome.result.warnings:
                    warn(f"{name}: {warning}")
                _print(outcome.source, _formatted(outcome, format, several=len(sources) > 1 and to is None), format, to)
    if len(sources) > 1:
        say(tally.line())
    if tally.failed:
        raise typer.Exit(1)


def _say_skipped(folder: str, files: Sequence[Path]) -> None:
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
    said = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))
    skipped = f"{len(files)} file{'s'[: len(files) > 1]}"
    say(f"skipped in {folder}: {skipped} without the suffix of audio ({said})")


def _formatted(outcome: Outcome, format: str, *, several: bool) -> str:
    transcript = outcome.result
    assert not isinstance(transcript, MoulinError)
    if format == "json":
        return to_json(transcript, outcome.source.name)
    if format in SUBTITLES:
        return SUBTITLES[format](transcript).rstrip("\n")
    lines = [f"{without_controls(outcome.source.name)}\t{transcript.text}" if several else transcript.text]
    parts = transcript.parts or (Part(transcript.alternatives),)
    return "\n".join(lines + [line for part in parts for line in _alternatives(part, timed=bool(transcript.parts))])


def _alternatives(part: Part, *, timed: bool) -> Iterator[str]:
    """A line for each alternative: where it begins if `timed`, its score and text."""
    at = f"{part.start_sec:8.2f} s" if timed else ""
    for one in part.alternatives:
        yield f"{at}{one.score:10.2f}  {one.text}"


def _print(source: AudioSource, text: str, format: str, to: Path | None) -> None:
    if to is None:
        echo(text)
        return
    suffix = {"text": "txt"}.get(format, format)
    file = to / f"{_stem(source)}.{suffix}"
    with unfinished(file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")) as part:
        part.write_text(text + "\n")
        part.replace(file)


def _check_folder(to: Path, sources: Sequence[AudioSource]) -> None:
    """Make the folder, before any recording is read. Raises OptionsError where two would write the same file."""
    names: dict[str, str] = {}
    for source in sources:
        first = names.setdefault(_stem(source), source.name)
        if first != source.name:
            raise OptionsError(
                f"{first} and {source.name} would write the same file in {to}",
                hint="transcribe them in two runs, each with a folder of its own",
            )
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"Cannot write into the folder {to}: {error.strerror}") from error


def _stem(source: AudioSource) -> str:
    return "stdin" if source.name == "-" else Path(source.name).stem


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))
