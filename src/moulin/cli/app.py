"""The `moulin` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from moulin import __version__
from moulin.cli import (
    bench,
    bulk,
    doctor,
    export,
    fetch,
    gateway,
    inspect,
    lm,
    repo,
    serve,
    stream,
    transcribe,
    trt,
    warm,
)
from moulin.cli.failures import told
from moulin.cli.interrupt import STATUS, interrupts
from moulin.cli.messages import show_error
from moulin.cli.verbs import HELP_WIDTH, VerbApp
from moulin.launch.address_space import COMMAND_GIB, expect_address_space

app = VerbApp(
    name="moulin",
    help="Serve transducer speech recognition (Icefall, k2) on NVIDIA Triton Inference Server.",
    epilog="Try it: moulin serve, and in another terminal: moulin transcribe speech.wav",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
)
for verb in (serve, gateway, transcribe, stream, inspect, export, warm, fetch, doctor):
    verb.add_to(app)
app.add_typer(bulk.app, name="bulk")
app.add_typer(repo.app, name="repo")
app.add_typer(bench.app, name="bench")
app.add_typer(trt.app, name="trt")
app.add_typer(lm.app, name="lm")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moulin {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version  # its own callback has printed it
    expect_address_space(COMMAND_GIB)


def main() -> None:
    """Run the command; what moulin raises on purpose becomes one line and a hint, without a traceback.

    After Ctrl-C, unless the command is one that Ctrl-C ends (`serve`, `gateway`), the exit status is 130.
    """
    try:
        with interrupts.watching():
            _run_to_status()
    except RuntimeError as error:  # no thread to watch for Ctrl-C
        failure = told(error)
        if failure is None:
            raise
        show_error(failure)
        sys.exit(1)


def _run_to_status() -> None:
    try:
        _run()
    except SystemExit as end:
        # typer turns KeyboardInterrupt into a status, perhaps before the thread has counted it; and a failure while
        # a command ends is not worth a message.
        if (interrupts.count or end.code == STATUS) and not interrupts.is_usual_end:
            raise _interrupted() from None
        raise


def _interrupted() -> SystemExit:
    interrupts.say()
    return SystemExit(STATUS)


def _run() -> None:
    try:
        app()
    except KeyboardInterrupt:
        raise _interrupted() from None
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error. Python would complain again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        failure = told(error)
        if failure is None:
            raise
        if not interrupts.count:
            show_error(failure)
        sys.exit(1)
