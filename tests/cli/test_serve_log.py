"""Standard error of `moulin serve`, all of one form."""

from __future__ import annotations

import json

import pytest
import typer

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
    ours = "moulin: asr_0_0: Compiled 3 of 9 GPU kernels"
    (line,) = shown(capsys, ServeLog(ServeLogOptions()), ours)
    assert line.endswith(" asr_0_0: Compiled 3 of 9 GPU kernels")
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
    with pytest.raises(typer.Exit) as end, ServeLog(ServeLogOptions(log_format="json")).errors():
        raise LaunchError("Expected a port, got none", hint="take another")
    assert end.value.exit_code == 1
    fields = json.loads(capsys.readouterr().err)
    assert (fields["level"], fields["message"], fields["hint"]) == (
        "error",
        "Expected a port, got none",
        "take another",
    )


def test_an_error_in_words_is_for_whoever_runs_the_command() -> None:
    with pytest.raises(LaunchError), ServeLog(ServeLogOptions()).errors():
        raise LaunchError("Expected a port, got none")


def test_the_same_line_only_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, ServeLog(ServeLogOptions()), *(FAILED.replace("load", f"load {n}") for n in range(1000)))
    assert len(lines) == 100


def test_quiet_and_verbose() -> None:
    with pytest.raises(OptionsError, match="Expected --quiet or --verbose, got both"):
        ServeLogOptions(quiet=True, verbose=True)
