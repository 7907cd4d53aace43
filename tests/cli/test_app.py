"""Properties that all verbs share."""

from __future__ import annotations

import subprocess
import sys

import pytest

from moulin import __version__

from .command import moulin, moulin_here

VERBS = [
    ["serve"],
    ["transcribe"],
    ["stream"],
    ["inspect"],
    ["export"],
    ["fetch"],
    ["doctor"],
    ["repo"],
    ["repo", "build"],
    ["bench"],
    ["bench", "offline"],
    ["bench", "streaming"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_has_an_example(verb: list[str]) -> None:
    done = moulin(*verb, "--help").expect(0)
    assert f"Usage: moulin {' '.join(verb)}" in done.out
    assert f"Example: moulin {' '.join(verb)}" in done.out
    assert done.err == ""


def test_help_names_every_verb() -> None:
    done = moulin("--help").expect(0)
    for verb in VERBS:
        assert f"\n  {verb[0]} " in done.out
    assert "Try it: moulin serve" in done.out


@pytest.mark.parametrize("group", [[], ["bench"], ["repo"], ["trt"]], ids=" ".join)
def test_help_of_a_group_has_whole_sentences(group: list[str]) -> None:
    short, long = (moulin(*group, flag).expect(0).out for flag in ("-h", "--help"))
    assert short == long
    assert "..." not in short.partition("Commands:")[2]


def test_help_takes_the_width_of_the_terminal() -> None:
    wide, narrow = (moulin("-h", environ={"COLUMNS": columns}).expect(0).out for columns in ("140", "70"))
    assert 100 < max(map(len, wide.splitlines())) <= 120
    assert max(map(len, narrow.splitlines())) <= 70


def test_options_stand_below_headings_in_whole_lines() -> None:
    out = moulin_here("serve", "--help").expect(0).out
    headings = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:2] == ["Arguments:", "Options:"]
    wanted = {
        "Model:",
        "Service:",
        "Engine:",
        "Decoding:",
        "Whole utterances:",
        "Live streams:",
        "Addresses:",
        "Gateway:",
    }
    assert wanted | {"Access:", "Log:"} <= set(headings)
    assert "[default: 64 for whole utterances; 16 for live streams]" in " ".join(out.split())


def test_completion() -> None:
    asked = {"_MOULIN_COMPLETE": "complete_bash", "COMP_WORDS": "moulin se", "COMP_CWORD": "1"}
    assert moulin(environ=asked).expect(0).out == "serve\n"


def test_version() -> None:
    assert moulin("--version").expect(0).out == f"moulin {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["repo"], ["transcribe"]], ids=" ".join)
def test_nothing_asked_for_shows_the_help(arguments: list[str]) -> None:
    done = moulin(*arguments).expect(2)
    assert "Usage: moulin" in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "No such option: --nonsense"),
        (["sing"], "No such command 'sing'"),
        *(([*verb, "--nonsense"], "No such option: --nonsense") for verb in VERBS),
        (["transcribe", "x.wav", "--format", "doc"], "Invalid value for '--format'"),
        (["transcribe", "x.wav", "--beam", "four"], "Invalid value for '--beam'"),
        (["inspect"], "Missing argument 'MODEL'"),
        (["repo", "build", "x"], "Missing option '--to'"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    done = moulin_here(*arguments).expect(2)
    assert message in done.err
    assert done.out == ""


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, moulin.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "onnx", "onnxruntime", "soundfile", "tritonclient", "grpc", "torch", "av", "rich"}
    assert not heavy & set(modules)
