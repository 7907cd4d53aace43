"""The examples in help: all of them are commands that moulin takes, and what needs no GPU, network or service runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from moulin.cli.app import app
from moulin.demo.files import DEMO_MANIFEST, DEMO_MODEL
from moulin.launch.server import TritonServer
from tests.bundles import BUNDLES, TRAINING
from tests.conftest import Recording

ROOT: Any = typer.main.get_command(app)


def verbs(command: Any = ROOT, path: tuple[str, ...] = ("moulin",)) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from verbs(below, (*path, name))


EXAMPLES = {name: (command.epilog or "") for name, command in verbs()}
"""The lines below the help of each verb."""


def example_of(verb: str) -> str:
    """The command alone, without the sentence that may stand behind it."""
    found = re.match(r"Example: (moulin [^(]*?)(?:\. | \(|$)", EXAMPLES[verb])
    assert found, f"{verb} has no example: {EXAMPLES[verb]!r}"
    return found[1].strip()


@pytest.mark.parametrize("verb", [name for name in EXAMPLES if name != "moulin"])
def test_the_command_is_understood(verb: str) -> None:
    for part in re.split(r"&&|\||>", example_of(verb)):
        words = shlex.split(part)
        if words[0] != "moulin":  # jq, or the file behind >
            continue
        command, context = ROOT, ROOT.context_class(ROOT, info_name="moulin")
        rest = words[1:]
        while hasattr(command, "commands"):
            name = rest.pop(0) if rest[0] in command.commands else "run"  # bulk MANIFEST is bulk run MANIFEST
            command = command.commands[name]
        command.make_context(command.name, rest, parent=context)  # raises what the command line would say


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, recordings: list[Recording]) -> Path:
    """A folder with all that the examples name."""
    place = tmp_path_factory.mktemp("examples")
    (place / "models").mkdir()
    (place / "models" / "zipformer").symlink_to(DEMO_MODEL)
    exp = place / "exp"
    exp.mkdir()
    trained = TRAINING / "zipformer2-causal-training"
    for of, name in ((1, "epoch-21.pt"), (3, "epoch-30.pt")):
        (exp / name).symlink_to(trained / f"epoch-{of}.pt")
    shutil.copy(trained / "tokens.txt", exp)
    (place / "calls").mkdir()
    for recording in recordings[:2]:
        shutil.copy(recording.file, place / "calls")
    shutil.copy(recordings[0].file, place / "speech.wav")  # whatever its name says
    (place / "calls.txt").write_text("ONE TWO THREE\nTWO FOUR ONE\n" * 5)
    (place / "text.txt").write_text("ONE TWO THREE\nTWO FOUR ONE\n" * 5)
    (place / "data").mkdir()
    shutil.copytree(DEMO_MANIFEST.parent, place / "data" / "test")
    (place / "plain").mkdir()
    (place / "plain" / "zipformer").symlink_to(BUNDLES / "zipformer2-offline")
    return place


def run(example: str, folder: Path) -> str:
    """Standard output of the example in a shell."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", example], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{example}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("verb", "written"),
    [
        ("moulin repo build", "repository/transducer/config.pbtxt"),
        ("moulin lm build", "lm.arpa"),
        ("moulin bench accuracy", "report.html"),
        ("moulin trt build", None),
        pytest.param("moulin export", "model/tokens.txt", marks=pytest.mark.needs("torch")),
    ],
)
def test_it_runs(verb: str, written: str | None, folder: Path) -> None:
    example = example_of(verb).partition(" && moulin serve")[0]
    if verb == "moulin bench accuracy":
        example += " --targets moulin"
    if verb == "moulin trt build":  # from int8 files no engine is built
        example = example.replace("models/", "plain/")
    said = run(example, folder)
    assert said or written
    assert written is None or (folder / written).exists()


def test_inspect_and_its_pipe(folder: Path) -> None:
    assert "vocab_size" in run(example_of("moulin inspect").partition("|")[0], folder)


@pytest.mark.triton
def test_a_server_hears(server: TritonServer, folder: Path) -> None:
    run(example_of("moulin transcribe").replace("transcribe", f"transcribe --url {server.grpc_url}"), folder)
    assert len((folder / "calls.jsonl").read_text().splitlines()) == 2
    streamed = example_of("moulin stream").replace(" --realtime", "")  # as fast as may be
    assert run(f"{streamed} --url {server.grpc_url} --name transducer_streaming", folder).strip()
