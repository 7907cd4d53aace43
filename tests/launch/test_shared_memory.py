from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from moulin.errors import LaunchError
from moulin.launch.shared_memory import DrainNote, RegionOwner, region_bytes, sweep_orphans


@pytest.fixture
def shm(tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def _prefix_of_a_dead_process(shm: Path) -> str:
    code = (
        "import os, sys; from pathlib import Path; from moulin.launch.shared_memory import RegionOwner\n"
        "print(RegionOwner(Path(sys.argv[1])).prefix, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(shm)], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip()


@pytest.fixture
def living(shm: Path) -> Iterator[RegionOwner]:
    owner = RegionOwner(shm)
    yield owner
    owner.close()


def test_prefixes_differ_and_tell_the_process(shm: Path) -> None:
    first, second = RegionOwner(shm), RegionOwner(shm)
    assert first.prefix != second.prefix
    assert first.prefix.split("-")[2] == str(os.getpid())
    first.close()
    second.close()
    assert list(shm.iterdir()) == []


def test_sweep_removes_what_the_dead_left_and_nothing_else(shm: Path, proc: Path, living: RegionOwner) -> None:
    dead = _prefix_of_a_dead_process(shm) + "region"
    owner_of_dead = f"moulin-{dead.split('-')[1]}.owner"
    names = [living.prefix + "region", "moulin-notes", "triton_python_backend_shm_region_1"]
    for name in (dead, *names):
        (shm / name).write_text("")
    assert (shm / owner_of_dead).exists()
    assert sweep_orphans(shm, proc) == [dead]
    left = sorted(path.name for path in shm.iterdir() if path.suffix != ".owner")
    assert left == sorted(names)
    assert not (shm / owner_of_dead).exists()


def test_another_container_with_the_same_pid_keeps_its_regions(shm: Path, proc: Path, living: RegionOwner) -> None:
    """The other process sees none of our processes, and believes itself to be our process id."""
    region = shm / f"{living.prefix}region"
    region.write_text("")
    code = (
        f"import os, sys; os.getpid = lambda: {os.getpid()}\n"
        "from pathlib import Path; from moulin.launch.shared_memory import RegionOwner, sweep_orphans\n"
        "shm, proc = map(Path, sys.argv[1:]); owner = RegionOwner(shm); print(sweep_orphans(shm, proc)); owner.close()"
    )
    command = [sys.executable, "-c", code, str(shm), str(proc)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    assert region.exists()


def test_sweep_waits_for_a_server_that_is_still_shutting_down(shm: Path, proc: Path) -> None:
    dead = _prefix_of_a_dead_process(shm)
    (shm / f"{dead}region").write_text("")
    process = proc / "99999999"
    process.mkdir()
    argument = f"--backend-config=python,shm-region-prefix-name={dead}"
    (process / "cmdline").write_text(f"/opt/tritonserver/bin/tritonserver\0{argument}\0")
    assert sweep_orphans(shm, proc) == []
    (process / "cmdline").unlink()
    assert sweep_orphans(shm, proc) == [f"{dead}region"]


def test_sweep_ends_stubs_that_the_dead_left(shm: Path) -> None:
    dead = _prefix_of_a_dead_process(shm)
    # A shell under the stub's name; it says when it runs, for /proc shows no arguments until exec is through.
    command = ["triton_python_backend_stub", "-c", "echo running; read line", f"{dead}region"]
    with subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        sweep_orphans(shm)
        assert process.wait(60) == -9


def test_closing_removes_its_own_regions_alone(shm: Path, living: RegionOwner) -> None:
    other = RegionOwner(shm)
    (shm / f"{other.prefix}a").write_text("")
    (shm / f"{living.prefix}a").write_text("")
    other.close()
    other.close()
    assert (shm / f"{living.prefix}a").exists()
    assert not list(shm.glob(f"{other.prefix}*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="Expected shared memory that can be written") as caught:
        RegionOwner(tmp_path / "absent")
    assert "--shm-size" in str(caught.value.hint)


def test_models_know_that_their_server_is_about_to_end(tmp_path: Path) -> None:
    owner, other = RegionOwner(tmp_path), RegionOwner(tmp_path)
    notes = [DrainNote(f"/{each.prefix}0", tmp_path) for each in (owner, other)]
    assert not any(notes)
    owner.note_draining()
    assert list(map(bool, notes)) == [True, False]
    assert not DrainNote("/triton_python_backend_shm_region_1", tmp_path)  # of a server that moulin did not start
    owner.close()
    other.close()
    assert not any(notes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free_mib", "region_mib"), [(0, 1), (8, 1), (64, 1), (127, 1), (128, 2), (511, 7), (512, 8), (100_000, 8)]
)
def test_regions_of_many_models_fit(free_mib: int, region_mib: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_mib << 20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert region_bytes() == region_mib << 20
    if free_mib >= 64:
        assert 32 * region_bytes() <= free / 2
