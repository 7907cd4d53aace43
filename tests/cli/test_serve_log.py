"""Standard error of `moulin serve`, all of one form."""

from __future__ import annotations

import json
import logging
import re
import warnings
from typing import Any

import pytest
import typer

from moulin.cli.messages import say, warn
from moulin.cli.serve_log import ServeLog, ServeLogOptions
from moulin.errors import LaunchError, OptionsError

LOADING = 'I1129 05:58:07.380776 18048 model_lifecycle.cc:472] "loading: transducer:1"'
FAILED = 'E1129 05:58:07.380776 18048 model_lifecycle.cc:642] "failed to load"'
TABLE = ["I1129 05:58:11.921466 18048 server.cc:674] ", "+----+", "| ab |", "+----+", ""]


def shown(capsys: pytest.CaptureFixture[str], log: ServeLog, *lines: str) -> list[str]:
    capsys.readouterr()
    for line in lines:
        log.triton_line(line)
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err.splitlines()


@pytest.mark.parametrize("options", [ServeLogOptions(), ServeLogOptions(quiet=True)])
def test_warnings_and_errors_alone(capsys: pytest.CaptureFixture[str], options: ServeLogOptions) -> None:
    (line,) = shown(capsys, ServeLog(options), LOADING, FAILED, *TABLE)
    assert line.endswith(" Triton error: failed to load")


def test_how_far_a_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    ours = "moulin: asr_0_0: 4000 streams of 0.20 MB on cuda:0"
    (line,) = shown(capsys, ServeLog(ServeLogOptions()), ours)
    assert line.endswith(" asr_0_0: 4000 streams of 0.20 MB on cuda:0")
    assert "Triton" not in line
    assert not shown(capsys, ServeLog(ServeLogOptions(quiet=True)), ours)


def test_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, ServeLog(ServeLogOptions(verbose=True)), LOADING, FAILED, *TABLE)
    assert len(lines) == 7
    assert lines[0].endswith(" Triton info: loading: transducer:1")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    log = ServeLog(ServeLogOptions(verbose=True, log_format="json"))
    lines = [json.loads(line) for line in shown(capsys, log, LOADING, FAILED, *TABLE)]
    assert [line["level"] for line in lines[:2]] == ["info", "error"]
    assert lines[0]["logger"] == "tritonserver"
    assert lines[0]["message"] == "loading: transducer:1"
    assert lines[0]["source"] == "model_lifecycle.cc:472"
    log.say("\nServing\nmore", addresses={"HTTP": "127.0.0.1:8000"})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "Serving"
    assert json.loads(line)["addresses"] == {"HTTP": "127.0.0.1:8000"}


def test_an_error_in_json_ends_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, ServeLog(ServeLogOptions(log_format="json")).covering():
        raise LaunchError("Expected a port, got none", hint="take another")
    assert end.value.exit_code == 1
    fields = json.loads(capsys.readouterr().err)
    assert (fields["level"], fields["message"], fields["hint"]) == (
        "error",
        "Expected a port, got none",
        "take another",
    )


def test_an_error_in_words_has_the_date_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end, ServeLog(ServeLogOptions()).covering():
        raise LaunchError("Expected a port, got none", hint="take another")
    assert end.value.exit_code == 1
    lines = capsys.readouterr().err.splitlines()
    assert [re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+[+-]\d{4} (.*)", line)[1] for line in lines] == [  # type: ignore[index]
        "moulin: Expected a port, got none",
        "  hint: take another",
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "x"), "[Errno 28] No space left on device: 'x'"),
        (RuntimeError("can't start new thread"), "No more threads can be started (ulimit -u)"),
    ],
)
def test_errors_of_the_system_come_in_the_same_form(
    capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    with pytest.raises(typer.Exit), ServeLog(ServeLogOptions(log_format="json")).covering():
        raise error
    assert json.loads(capsys.readouterr().err)["message"] == message


def test_on_a_terminal_an_error_in_words_is_for_whoever_runs_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(LaunchError), ServeLog(ServeLogOptions()).covering():
        raise LaunchError("Expected a port, got none")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), ServeLog(ServeLogOptions(log_format="json")).covering():
        print(1 / 0)


def test_own_lines_have_the_date_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ServeLog(ServeLogOptions()).say("\nServing\n  gRPC  127.0.0.1:8001\n")
    lines = capsys.readouterr().err.splitlines()
    assert [re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+[+-]\d{4} (.*)", line)[1] for line in lines] == [  # type: ignore[index]
        "Serving",
        "  gRPC  127.0.0.1:8001",
    ]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.filterwarnings("always")
def test_messages_warnings_and_libraries_come_in_the_same_form(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    with ServeLog(ServeLogOptions(log_format=form)).covering():
        say("Taking the vocabulary x")
        warn("causal is taken for granted")
        logging.getLogger("some.library").error("lost %d of them", 3)
        warnings.warn("old", UserWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    if form == "json":
        records = [json.loads(line) for line in lines]
        assert [record["level"] for record in records] == ["info", "warning", "error", "warning"]
        texts = [record["message"] for record in records]
    else:
        assert all(re.match(r"\d{4}-", line) for line in lines)
        texts = [line.partition(" ")[2] for line in lines]
    assert texts[0] == "Taking the vocabulary x"
    assert texts[1].removeprefix("warning: ") == "causal is taken for granted"
    assert texts[2] == "lost 3 of them"
    assert "UserWarning: old" in texts[3]
    say("again on standard error")
    assert capsys.readouterr().err == "again on standard error\n"


def test_how_far_a_model_is_while_it_loads(capsys: pytest.CaptureFixture[str]) -> None:
    """Off a terminal a line now and then, in the log's form; the shim writes them."""
    passing = [f"moulin: transducer_0_0: capturing graphs {n} of 40 ..." for n in range(1, 41)]
    lines = shown(capsys, ServeLog(ServeLogOptions(log_format="json")), *passing)
    (record,) = map(json.loads, lines)
    assert (record["level"], record["message"]) == ("info", "transducer_0_0: capturing graphs 1 of 40 ...")
    assert not shown(capsys, ServeLog(ServeLogOptions(quiet=True)), *passing)


def test_on_a_terminal_the_next_line_replaces_what_is_passing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log = ServeLog(ServeLogOptions())
    lines = ["a_0_0: loading weights ...", "a_0_0: 4000 streams", "a_0_0: loading kernels ..."]
    weights, wiped, kernels = shown(capsys, log, *(f"moulin: {line}" for line in lines))
    assert "a_0_0: loading weights ..." in weights
    assert wiped.startswith("\x1b[2K")
    assert "a_0_0: 4000 streams" in wiped
    assert "a_0_0: loading kernels ..." in kernels


def test_the_same_line_only_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, ServeLog(ServeLogOptions()), *(FAILED.replace("load", f"load {n}") for n in range(1000)))
    assert len(lines) == 100


def test_quiet_and_verbose() -> None:
    with pytest.raises(OptionsError, match="Expected --quiet or --verbose, got both"):
        ServeLogOptions(quiet=True, verbose=True)
