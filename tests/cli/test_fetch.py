"""`moulin fetch`, and fetched models in place of MODEL, against a hub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from moulin.fetch.known_models import KNOWN_MODELS
from tests.bundles import BUNDLES
from tests.fetch.archives import NAME, PATH, model_members, tar_of
from tests.fetch.site import COMMIT, REPOSITORY, Site, files_of, publish, running

from .command import Finished, moulin

TINY = BUNDLES / "lstm-streaming"
HUB_MODEL = f"hf://{REPOSITORY}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running(Site()) as serving:
        publish(serving, files_of(TINY))
        serving.files[PATH] = tar_of(*model_members())
        yield serving


@pytest.fixture
def environ(site: Site, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": site.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def failing(done: Finished) -> tuple[str, str]:
    """The line and the hint of a failure."""
    done.expect(1)
    assert done.out == ""
    line, hint = done.err.splitlines()[-2:]
    assert line.startswith("moulin: ")
    assert hint.startswith("  hint: ")
    return line, hint


def test_the_folder_is_all_that_standard_output_has(environ: dict[str, str], tmp_path: Path) -> None:
    done = moulin("fetch", HUB_MODEL, environ=environ).expect(0)
    folder = Path(done.out.removesuffix("\n"))
    assert folder.is_relative_to(tmp_path / "cache" / "moulin" / "hub")
    assert done.err.splitlines()[0] == "tokens.txt (1 kB) ..."
    assert done.err.splitlines()[-1] == "Fetched 931 kB."
    assert json.loads(moulin("inspect", folder, "--json").expect(0).out)["name"] == "tiny-lstm"
    again = moulin("fetch", HUB_MODEL, environ=environ).expect(0)
    assert (again.out, again.err) == (done.out, "")


def test_nothing_else_is_written(environ: dict[str, str], tmp_path: Path) -> None:
    moulin("fetch", HUB_MODEL, environ=environ).expect(0)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["moulin"]


def test_inspect_takes_a_model_of_the_hub(environ: dict[str, str]) -> None:
    facts = json.loads(
        moulin("inspect", f"{HUB_MODEL}@{COMMIT}", "--json", "--precision", "fp32", environ=environ).expect(0).out
    )
    assert (facts["family"], facts["mode"]) == ("lstm", "streaming")
    line, _ = failing(moulin("inspect", HUB_MODEL, "--precision", "int8", environ=environ))
    assert line == f"moulin: {HUB_MODEL} has no int8 encoder, only fp32"


def test_repo_build_takes_an_address(site: Site, environ: dict[str, str], tmp_path: Path) -> None:
    moulin(
        "repo", "build", f"{site.url}{PATH}?signature={'x' * 300}", "--to", tmp_path / "repository", environ=environ
    ).expect(0)
    assert (tmp_path / "repository" / "transducer" / "config.pbtxt").is_file()


def test_an_archive(site: Site, environ: dict[str, str]) -> None:
    done = moulin("fetch", site.url + PATH, environ=environ).expect(0)
    assert json.loads(moulin("inspect", done.out.strip(), "--json").expect(0).out)["family"] == "lstm"
    line, _ = failing(moulin("fetch", f"{site.url}{PATH}#sha256={'0' * 64}", environ=environ))
    assert line.startswith(f"moulin: Expected {NAME} to have the checksum 000")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["hf://somebody/nothing"], "There is no model somebody/nothing", "check the name"),
        ([HUB_MODEL, "--revision", "v9"], "There is no model somebody/tiny-lstm", "check the name"),
        (["URL/nothing.tar.bz2"], "There is no nothing.tar.bz2 at http", "check the address"),
        (["http://127.0.0.1:9/a.tar.bz2"], "Cannot reach 127.0.0.1:9", "check the network"),
        (["nonsense"], "Expected a known name", "known names are"),
    ],
)
def test_failures(site: Site, environ: dict[str, str], arguments: list[str], message: str, hint: str) -> None:
    line, what_to_do = failing(
        moulin("fetch", *(argument.replace("URL", site.url) for argument in arguments), environ=environ)
    )
    assert message in line
    assert hint in what_to_do


def test_no_hub(environ: dict[str, str]) -> None:
    moulin("fetch", HUB_MODEL, environ=environ).expect(0)
    gone = {**environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "taking what was fetched before" in moulin("fetch", HUB_MODEL, environ=gone).expect(0).err
    line, _ = failing(moulin("fetch", "hf://somebody/else", environ=gone))
    assert "Cannot reach http://127.0.0.1:9" in line


def test_the_list() -> None:
    done = moulin("fetch", "--list").expect(0)
    assert done.out.startswith("NAME ")
    for model in KNOWN_MODELS:
        row = next(line for line in done.out.splitlines() if line.startswith(f"{model.name} "))
        size = "-" if model.size_mb is None else f"{model.size_mb} MB"
        for fact in (model.license, model.languages, model.page, model.mode, size):
            assert fact in row


def test_a_copy_where_it_is_wanted(environ: dict[str, str], tmp_path: Path) -> None:
    """As an init container of a pod does it, which may be killed on the way and started again."""
    to = tmp_path / "models" / "0"
    to.mkdir(parents=True)
    (to / ".tokens.txt.part").write_text("half a file of one that was killed")
    (to / "tokens.txt").write_text("of another release")
    done = moulin("fetch", HUB_MODEL, "--to", to, environ=environ).expect(0)
    assert done.out == f"{to}\n"
    assert {file.name for file in to.iterdir()} >= {file.name for file in TINY.iterdir() if file.suffix == ".onnx"}
    assert (to / "tokens.txt").read_bytes() == (TINY / "tokens.txt").read_bytes()
    assert not list(to.glob(".*.part"))
    assert not [file for file in to.iterdir() if file.is_symlink()]
    moulin("inspect", to).expect(0)
    file = tmp_path / "file"
    file.touch()
    assert "cannot be copied to" in moulin("fetch", HUB_MODEL, "--to", file, environ=environ).expect(1).err
