"""`moulin stream`: live speech in, text as it is spoken out."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moulin.cli.flags import ChangesOf, with_flags, without
from moulin.cli.interrupt import interrupts
from moulin.cli.recognized_by import RecognizedBy
from moulin.errors import OptionsError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.streaming.options import StreamOptions
from moulin.transcript_formats import to_json

if TYPE_CHECKING:
    from moulin.stream_audio import Chunks


def add_to(app: typer.Typer) -> None:
    app.command(name="stream", epilog="Example: moulin stream speech.wav --realtime", no_args_is_help=True)(stream)


@with_flags
def stream(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A recording, or - (stdin).")] = None,
    mic: Annotated[bool, typer.Option("--mic", help="The microphone instead, until Ctrl-C.")] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Send a file as slowly as it was spoken, not as fast as may be.")
    ] = False,
    chunk_ms: Annotated[
        int | None, typer.Option(min=1, help="Audio sent at a time.  [default: 320; 100 with --mic]")
    ] = None,
    format: Annotated[  # the flag's name
        Literal["text", "json"], typer.Option(help="What to print.")
    ] = "text",
    *,
    by: Annotated[RecognizedBy, without("threads", "cuda_graphs")],
    options: Annotated[dict[str, Any], ChangesOf(StreamOptions, "the server's")],
) -> None:
    """Recognise speech while it is spoken.

    On a terminal the text grows and settles as you listen; elsewhere it is printed when all is said. JSON is an
    object a line for every change, and the last line is that of 'moulin transcribe'.
    """
    from moulin.stream_audio import stream_in_process, stream_to_server

    if mic == (file is not None):
        raise OptionsError(f"Expected a FILE or --mic, got {'both' if mic else 'neither'}")
    model = by.runnable(streaming=True)

    with _microphone(chunk_ms or 100) if file is None else _file(file, chunk_ms or 320, realtime=realtime) as chunks:
        if model is not None:
            updates = stream_in_process(chunks, model, by.engine, options=options)
        else:
            updates = stream_to_server(chunks, by.address, model=by.name, options=options)
        # Closed at once when something fails or Ctrl-C is pressed, so that the server's slot is free again.
        with closing(updates):
            if format == "json":
                _print_json(updates, file or "microphone")
            else:
                _print_text(updates)


@contextmanager
def _file(name: str, chunk_ms: int, *, realtime: bool) -> Iterator[Chunks]:
    from moulin.audio.source import AudioSource
    from moulin.stream_audio import cut, in_real_time

    chunks = cut(AudioSource(name).read(), chunk_ms)
    yield in_real_time(chunks) if realtime else chunks


@contextmanager
def _microphone(chunk_ms: int) -> Iterator[Chunks]:
    """Chunks of the microphone until Ctrl-C, after which the recorded speech is still recognised. A second Ctrl-C ends
    the command."""
    from moulin.audio.microphone import Microphone

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, usual)
        microphone.stop()

    with Microphone(chunk_ms / 1000) as microphone, interrupts.first_taken():
        usual = signal.signal(signal.SIGINT, stop)
        if sys.stderr.isatty():
            typer.echo("Listening; Ctrl-C ends it.", err=True)
        try:
            yield microphone
        finally:
            signal.signal(signal.SIGINT, usual)


def _print_text(updates: Iterator[StreamUpdate]) -> None:
    from moulin.cli.live_text import LiveText

    live = LiveTranscript()
    with LiveText() as shown:
        for update in updates:
            live.apply(update)
            shown.show(update)
    if not sys.stdout.isatty():
        typer.echo(live.text)


def _print_json(updates: Iterator[StreamUpdate], file: str) -> None:
    live = LiveTranscript()
    for update in updates:
        before = (len(live.final), live.open)
        live.apply(update)
        if update.endpoint or update.is_final or before != (len(live.final), live.open):
            typer.echo(json.dumps({"file": file, "text": live.text, **update.to_dict()}, ensure_ascii=False))
    typer.echo(to_json(live.transcript(), file))
