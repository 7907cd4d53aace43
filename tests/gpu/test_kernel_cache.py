"""The kernels of a model are compiled once for all processes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from moulin.gpu import kernel_cache
from moulin.gpu.kernel_cache import KernelSet, complete_kernels
from moulin.launch.file_lock import FileLock


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # so that it is as before in the end
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setattr(kernel_cache, "_chosen", {})
    return tmp_path / "moulin" / "kernels"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The compute capabilities of all compilations so far."""
    done: list[int] = []

    def compile_kernels(run, capability, *, threads):  # type: ignore[no-untyped-def]  # noqa: ARG001
        run()
        done.append(capability)
        return 7

    monkeypatch.setattr(kernel_cache, "compile_kernels", compile_kernels)
    return done


def kernels(sizes: object = 1) -> KernelSet:
    return KernelSet("tiny", sizes, lambda: None)


def test_once_for_sizes_and_card(compiled: list[int], cache: Path) -> None:
    assert complete_kernels(kernels(), 90) == 7
    assert complete_kernels(kernels(), 90) == 0
    assert complete_kernels(kernels(2), 90) == 7
    assert complete_kernels(kernels(), 120) == 7
    assert compiled == [90, 90, 120]
    assert sorted(folder.name.rpartition("-")[2] for folder in cache.iterdir()) == ["sm120", "sm90"]
    assert os.environ["TRITON_CACHE_DIR"].endswith("-sm120")


def test_others_wait_for_whoever_compiles(compiled: list[int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "moulin.gpu")
    compiling, go_on = Event(), Event()

    def run() -> None:
        compiling.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(complete_kernels, KernelSet("tiny", 1, run), 90)
        assert compiling.wait(60)
        second = pool.submit(complete_kernels, kernels(), 90)
        while not any("waits for it" in message for message in caplog.messages):
            assert not second.done()
        go_on.set()
        assert (first.result(), second.result()) == (7, 0)
    assert compiled == [90]


def test_a_failure_leaves_neither_lock_nor_mark(compiled: list[int], cache: Path) -> None:
    def fail() -> None:
        raise RuntimeError("ptxas failed")

    with pytest.raises(RuntimeError, match="ptxas failed"):
        complete_kernels(KernelSet("tiny", 1, fail), 90)
    (folder,) = cache.iterdir()
    FileLock(folder / "lock").release()
    assert complete_kernels(kernels(), 90) == 7
    assert compiled == [90]


@pytest.mark.usefixtures("compiled")
def test_a_place_that_was_chosen_for_triton_lang_stays(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "somewhere"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    assert complete_kernels(kernels(), 90) == 7
    assert complete_kernels(kernels(), 90) == 0
    assert complete_kernels(kernels(), 120) == 7
    assert len(list(folder.glob("*.complete"))) == 2
    assert os.environ["TRITON_CACHE_DIR"] == str(folder)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(compiled: list[int], cache: Path) -> None:
    cache.parent.write_text("not a folder")
    with pytest.raises(OSError, match="Not a directory"):
        complete_kernels(kernels(), 90)
    assert not compiled
