"""`moulin stream`: live speech in, text as it is spoken out."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moulin.cli.arguments import (
    BeamOption,
    DeviceOption,
    EngineOption,
    LanguageOption,
    MethodOption,
    PrecisionOption,
    decoding_changes,
)
from moulin.cli.interrupt import interrupts
from moulin.errors import OptionsError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.transcript_formats import to_json

if TYPE_CHECKING:
    from moulin.stream_audio import Chunks


def add_to(app: typer.Typer) -> None:
    app.command(name="stream", epilog="Example: moulin stream speech.wav --realtime", no_args_is_help=True)(stream)


def stream(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A recording, or - (stdin).")] = None,
    mic: Annotated[bool, typer.Option("--mic", help="The microphone instead, until Ctrl-C.")] = False,
    url: Annotated[str | None, typer.Option(help="gRPC address of the server.  [default: localhost:8001]")] = None,
    model: Annotated[Path | None, typer.Option(help="Recognise in this process with this model, no server.")] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Send a file as slowly as it was spoken, not as fast as may be.")
    ] = False,
    chunk_ms: Annotated[
        int | None, typer.Option(min=1, help="Audio sent at a time.  [default: 320; 100 with --mic]")
    ] = None,
    format: Annotated[  # the flag's name
        Literal["text", "json"], typer.Option(help="What to print.")
    ] = "text",
    endpoint: Annotated[
        bool | None, typer.Option("--endpoint/--no-endpoint", help="Cut at pauses.  [default: the server's]")
    ] = None,
    method: MethodOption = None,
    beam: BeamOption = None,
    name: Annotated[str, typer.Option(help="The model's name in Triton.")] = "transducer",
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    language: LanguageOption = None,
) -> None:
    """Recognise speech while it is spoken.

    On a terminal the text grows and settles as you listen; elsewhere it is printed when all is said. JSON is an
    object a line for every change, and the last line is that of 'moulin transcribe'.
    """
    from moulin.cli.runnable_model import runnable_model
    from moulin.stream_audio import stream_in_process, stream_to_server

    if mic == (file is not None):
        raise OptionsError(f"Expected a FILE or --mic, got {'both' if mic else 'neither'}")
    if url is not None and model is not None:
        raise OptionsError("Expected --url or --model, got both", hint="--model recognises without a server")
    if model is not None:
        model = runnable_model(
            model, engine=engine, precision=precision, device=device, streaming=True, language=language
        )
    options = decoding_changes(method, beam) | ({} if endpoint is None else {"endpoint": endpoint})

    with _microphone(chunk_ms or 100) if file is None else _file(file, chunk_ms or 320, realtime=realtime) as chunks:
        if model is not None:
            updates = stream_in_process(
                chunks, model, options=options, precision=precision, engine=engine, device=device
            )
        else:
            updates = stream_to_server(chunks, url or "localhost:8001", model=name, options=options)
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
    """Ctrl-C ends the recording, and what was said is still recognised. Pressed again it ends everything."""
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
