"""Workspaces of processes that share a cache folder, and cannot see each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch.file_lock import FileLock, owner_is_gone
from moulin.launch.workspace import discard, workspace


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "moulin" / "workspaces"


@contextmanager
def _another(pid: int) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with a workspace, which believes itself to be process `pid`."""
    code = (
        f"import os; os.getpid = lambda: {pid}\n"
        "from moulin.launch.workspace import discard, workspace\n"
        "with workspace('repository') as folder:\n"
        "    (folder / 'model').write_text('theirs'); print(folder, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_folder_of_this_name_for_the_time_of_the_block(cache: Path) -> None:
    with workspace("repository") as folder:
        assert folder.name == "repository"
        assert list(folder.iterdir()) == []
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_two_processes_with_one_pid_have_folders_of_their_own() -> None:
    with _another(1) as (_, theirs), _another(1) as (_, others):
        assert theirs != others
        assert (theirs / "model").read_text() == (others / "model").read_text() == "theirs"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("pid", [1, os.getpid(), 2**22 + 1], ids=["process 1", "ours", "nobody's"])
def test_a_living_owner_keeps_its_folder_whatever_its_pid(pid: int) -> None:
    """A pid that is not to be seen here is that of a process in another container, or on another machine."""
    with _another(pid) as (_, theirs), workspace("repository") as ours:
        assert ours != theirs
        assert (theirs / "model").read_text() == "theirs"


def test_the_folder_of_a_killed_owner_is_removed_by_the_next(cache: Path) -> None:
    with _another(1) as (process, theirs):
        process.kill()
        process.wait()
        assert theirs.exists()
        with workspace("repository") as ours:
            assert [folder.name for folder in cache.iterdir()] == [ours.parent.name]


def test_what_never_got_its_name_is_removed_after_a_day(cache: Path) -> None:
    for name in (".new-old", ".new-young"):
        (cache / name).mkdir(parents=True)
    os.utime(cache / ".new-old", (0, 0))
    with workspace("repository"):
        assert not (cache / ".new-old").exists()
        assert (cache / ".new-young").exists()


def test_what_others_named_is_left_alone(cache: Path) -> None:
    (cache / "123-repository").mkdir(parents=True)
    (cache / "at-without-owner").mkdir()
    with workspace("repository"):
        pass
    assert {folder.name for folder in cache.iterdir()} == {"123-repository", "at-without-owner"}


@pytest.mark.usefixtures("cache")
def test_locks_that_a_file_system_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with workspace("repository") as first:
        (first / "model").write_text("")
        with workspace("repository") as second:
            assert second != first
        assert (first / "model").exists()


def test_a_cache_that_cannot_be_written(cache: Path) -> None:
    cache.parent.parent.joinpath("moulin").write_text("")
    with pytest.raises(LaunchError, match="Expected a cache folder that can be written") as caught, workspace("x"):
        pass
    assert "XDG_CACHE_HOME" in str(caught.value.hint)


def test_locks(tmp_path: Path) -> None:
    file = tmp_path / "owner"
    assert owner_is_gone(file) is None
    first = FileLock(file)
    with pytest.raises(BlockingIOError):
        FileLock(file)
    assert owner_is_gone(file) is None
    first.release()
    taken = owner_is_gone(file)
    assert taken is not None
    taken.release()
    both = [FileLock(file, shared=True), FileLock(file, shared=True)]
    assert owner_is_gone(file) is None
    for lock in both:
        lock.release()


@pytest.mark.parametrize("half_removed", [False, True])
def test_discarded_from_another_thread(cache: Path, half_removed: bool) -> None:
    """By a second Ctrl-C, perhaps while the first one's removal is under way."""
    with workspace("repository") as folder:
        (folder / "model").write_text("ours")
        if half_removed:
            folder.parent.rename(cache / f".new-{folder.parent.name.removeprefix('at-')}")
        discard(folder)
        assert list(cache.iterdir()) == []
