from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from moulin.launch.shared_memory import region_prefix, remove_regions, sweep_orphans


def _prefix_of_a_dead_process() -> str:
    code = "from moulin.launch.shared_memory import region_prefix; print(region_prefix())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_prefixes_differ() -> None:
    assert region_prefix() != region_prefix()


def test_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    dead = _prefix_of_a_dead_process() + "region"
    _, namespace, *rest = dead.split("-")
    other_container = "-".join(["moulin", str(int(namespace) + 1), *rest])
    names = [dead, other_container, region_prefix() + "region", "moulin-notes", "triton_python_backend_shm_region_1"]
    for name in names:
        (tmp_path / name).write_text("")
    assert sweep_orphans(tmp_path, tmp_path) == [dead]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_sweep_waits_for_a_server_that_is_still_shutting_down(tmp_path: Path) -> None:
    dead = _prefix_of_a_dead_process()
    (tmp_path / f"{dead}region").write_text("")
    process = tmp_path / "123"
    process.mkdir()
    argument = f"--backend-config=python,shm-region-prefix-name={dead}"
    (process / "cmdline").write_text(f"/opt/tritonserver/bin/tritonserver\0{argument}\0")
    assert sweep_orphans(tmp_path, tmp_path) == []


def test_sweep_ends_stubs_that_the_dead_left(tmp_path: Path) -> None:
    dead = _prefix_of_a_dead_process()
    # A shell under the stub's name; it says when it runs, for /proc shows no arguments until exec is through.
    command = ["triton_python_backend_stub", "-c", "echo running; read line", f"{dead}region"]
    with subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        sweep_orphans(tmp_path)
        assert process.wait(5) == -9


def test_remove_regions(tmp_path: Path) -> None:
    (tmp_path / "moulin-1-a").write_text("")
    (tmp_path / "moulin-10-a").write_text("")
    remove_regions("moulin-1-", tmp_path)
    remove_regions("moulin-1-", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["moulin-10-a"]
