"""`moulin stream`: live speech in, text as it is spoken out."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moulin.audio.selection import StreamSelection
from moulin.cli.flags import ChangesOf, with_flags, without
from moulin.cli.hotwords import HOTWORDS, changed_hotwords
from moulin.cli.interrupt import interrupts
from moulin.cli.messages import warn
from moulin.cli.recognized_by import RecognizedBy
from moulin.errors import OptionsError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.streaming.options import StreamOptions
from moulin.transcript_formats import to_json

if TYPE_CHECKING:
    from moulin.audio.live_input import LiveInput
    from moulin.audio.source import AudioSource
    from moulin.stream_audio import Chunks


def add_to(app: typer.Typer) -> None:
    app.command(name="stream", epilog="Example: moulin stream speech.wav --realtime", no_args_is_help=True)(stream)


@with_flags
def stream(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A recording; - (stdin) or a FIFO, live.")] = None,
    mic: Annotated[bool, typer.Option("--mic", help="The microphone instead, until Ctrl-C.")] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Send a file as slowly as it was spoken, not as fast as may be.")
    ] = False,
    chunk_ms: Annotated[
        int | None, typer.Option(min=1, help="Audio sent at a time.  [default: 320; 100 with --mic]")
    ] = None,
    raw: Annotated[
        str | None, typer.Option(metavar="ENCODING:RATE[:CHANNELS]", help="The audio is headerless, e.g. s16le:16000.")
    ] = None,
    format: Annotated[  # the flag's name
        Literal["text", "json"], typer.Option(help="What to print.")
    ] = "text",
    hotwords: Annotated[str | None, HOTWORDS] = None,
    *,
    selection: StreamSelection,
    by: Annotated[RecognizedBy, without("threads", "cuda_graphs")],
    options: Annotated[dict[str, Any], ChangesOf(StreamOptions, "the server's")],
) -> None:
    """Recognise speech while it is spoken.

    On a terminal the text grows and settles as you listen. Elsewhere that of a file is printed when all is said; that
    of a pipe or the microphone comes in lines, one a second while words come and one at each pause, and what is written
    stays. JSON is an object a line for every change, and the last line is that of 'moulin transcribe'. Ctrl-C ends a
    pipe or the microphone; what was said is still recognised.
    """
    from moulin.audio.source import AudioSource, parse_raw_format
    from moulin.stream_audio import stream_in_process, stream_to_gateway, stream_to_server

    if mic == (file is not None):
        raise OptionsError(f"Expected a FILE or --mic, got {'both' if mic else 'neither'}")
    if mic and raw is not None:
        raise OptionsError("Expected --raw with a FILE or -, got it with --mic")
    if mic and selection != StreamSelection():
        raise OptionsError("Expected --channels and --track with a FILE or -, got them with --mic")
    source = None if file is None else AudioSource(file, parse_raw_format(raw) if raw else None, selection)
    options |= changed_hotwords(hotwords)
    is_live = source is not None and _is_live(source.name)
    model, gateway = by.runnable(streaming=True), by.gateway

    with _chunks(source, chunk_ms, is_live=is_live, realtime=realtime) as chunks, by.explained():
        if model is not None:
            updates = stream_in_process(chunks, model, by.engine, options=options, lm=by.lm)
        elif gateway is not None:
            updates = stream_to_gateway(chunks, gateway, model=by.name, options=options, on_warning=warn)
        else:
            updates = stream_to_server(chunks, by.address, model=by.served_name, options=options)
        # Closed at once when something fails or Ctrl-C is pressed, so that the server's slot is free again.
        with closing(updates):
            if format == "json":
                _print_json(updates, file or "microphone")
            else:
                _print_text(updates, at_once=is_live or mic)


@contextmanager
def _chunks(source: AudioSource | None, chunk_ms: int | None, *, is_live: bool, realtime: bool) -> Iterator[Chunks]:
    from moulin.stream_audio import cut, gathered, in_real_time

    if source is None:
        with _microphone(chunk_ms or 100) as chunks:
            yield chunks
        return
    with _live(source) if is_live else nullcontext() as live:
        if live is None:
            chunks = cut(source.read(lambda warning: warn(f"{source.name}: {warning}")), chunk_ms or 320)
        else:
            chunks = gathered(live, chunk_ms or 100)
        yield in_real_time(chunks) if realtime else chunks


def _is_live(name: str) -> bool:
    """Whether the audio may still be written while it is read: a pipe, a FIFO, a device."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode if name == "-" else Path(name).stat().st_mode
    except (OSError, ValueError):  # reading it will say what is wrong
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _live(source: AudioSource) -> Iterator[LiveInput]:
    """What another program writes, until it ends or Ctrl-C; says so where it did not end well."""
    from moulin.audio.live_input import LiveInput

    is_stdin = source.name == "-"
    name = "standard input" if is_stdin else source.name
    with nullcontext(sys.stdin.buffer) if is_stdin else Path(source.name).open("rb", buffering=0) as file:
        with (
            closing(LiveInput(file.fileno(), name, source.raw, source.selection)) as live,
            _ended_by_ctrl_c(live.stop),
        ):
            yield live
        if live.fault is not None:
            warn(f"{source.name} ended early: {live.fault}")
        for warning in live.warnings:
            warn(f"{source.name}: {warning}")


@contextmanager
def _ended_by_ctrl_c(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls `stop`; a second one ends the command."""

    def stopping(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, usual)
        stop()

    with interrupts.first_taken():
        usual = signal.signal(signal.SIGINT, stopping)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)


@contextmanager
def _microphone(chunk_ms: int) -> Iterator[Chunks]:
    """Chunks of the microphone until Ctrl-C, after which the recorded speech is still recognised."""
    from moulin.audio.microphone import Microphone

    with Microphone(chunk_ms / 1000) as microphone, _ended_by_ctrl_c(microphone.stop):
        if sys.stderr.isatty():
            typer.echo("Listening; Ctrl-C ends it.", err=True)
        yield microphone


def _print_text(updates: Iterator[StreamUpdate], *, at_once: bool) -> None:
    """Print the text; where it goes to no terminal, line by line (`at_once`) or all of it at the end."""
    from moulin.cli.live_text import LiveText, TextLines

    live, lines = LiveTranscript(), TextLines(sys.stdout)
    to_terminal = sys.stdout.isatty()
    with LiveText() as shown:
        for update in updates:
            live.apply(update)
            shown.show(update)
            if at_once and not to_terminal:
                lines.write(update)
    if at_once and not to_terminal:
        lines.end()
    elif not to_terminal:
        typer.echo(live.text)


def _print_json(updates: Iterator[StreamUpdate], file: str) -> None:
    live = LiveTranscript()
    for update in updates:
        before = (len(live.final), live.open)
        live.apply(update)
        if update.endpoint or update.is_final or before != (len(live.final), live.open):
            typer.echo(json.dumps({"file": file, "text": live.text, **update.to_dict()}, ensure_ascii=False))
    typer.echo(to_json(live.transcript(), file))
