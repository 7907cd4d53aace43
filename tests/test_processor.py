"""Processors as Linux describes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moulin.processor import Processor, c_compiler, load_with_few_threads, num_cores, this_processor

ZEN4 = "processor\t: 0\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu fma avx2 avx512f avx512_vnni avx512_bf16\n"
SAPPHIRE = "model name\t: Intel(R) Xeon(R) Platinum 8480+\nflags\t\t: avx2 avx512f avx512_bf16 amx_bf16 amx_int8\n"
MILAN = "model name\t: AMD EPYC\nflags\t\t: fpu fma avx2\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "bf16", "int8", "said"),
    [
        (ZEN4, True, True, "AMD EPYC 9654 (AVX2, AVX-512, AVX-512 VNNI, AVX-512 BF16)"),
        (SAPPHIRE, True, True, "Intel(R) Xeon(R) Platinum 8480+ (AVX2, AVX-512, AVX-512 BF16, AMX BF16, AMX INT8)"),
        (MILAN, False, False, "AMD EPYC (AVX2)"),
        (GRAVITON, True, True, "(NEON, SVE, BF16, I8MM)"),
        ("", False, False, "(no vector instructions that moulin knows)"),
    ],
)
def test_what_it_computes_with(tmp_path: Path, cpuinfo: str, bf16: bool, int8: bool, said: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    processor = this_processor(file)
    assert (processor.multiplies_bf16, processor.multiplies_int8) == (bf16, int8)
    assert said in str(processor)


def test_without_cpuinfo(tmp_path: Path) -> None:
    assert this_processor(tmp_path / "none").flags == frozenset()


def test_this_machine() -> None:
    assert this_processor().flags


BARE, VIRTUAL = (Processor("", frozenset(flags)) for flags in ([], ["hypervisor"]))


@pytest.mark.parametrize(
    ("siblings", "processor", "cores"),
    [
        (["0", "1", "2", "3"], BARE, 4),
        (["0", "1", "2", "3"], VIRTUAL, 2),  # which two are one core it does not say
        (["0", "1", "2"], VIRTUAL, 2),
        (["0"], VIRTUAL, 1),
        (["0-1", "0-1", "2-3", "2-3"], VIRTUAL, 2),
        (["0,2", "1", "0,2"], BARE, 2),
        ([None, None], BARE, 2),  # as where /sys is not mounted
    ],
)
def test_cores(tmp_path: Path, siblings: list[str | None], processor: Processor, cores: int) -> None:
    for cpu, line in enumerate(siblings):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        if line is not None:
            # An old kernel has the other name alone.
            (folder / ("thread_siblings_list" if cpu == 0 else "core_cpus_list")).write_text(f"{line}\n")
    assert num_cores(range(len(siblings)), processor=processor, topology=tmp_path) == cores


def test_cores_here() -> None:
    assert 1 <= num_cores() <= len(os.sched_getaffinity(0))


def test_few_threads_load_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((32, "4"), (2, "2"), (0, "1")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        load_with_few_threads(cores)
        assert os.environ["OMP_NUM_THREADS"] == expected
    load_with_few_threads(32)
    assert os.environ["OMP_NUM_THREADS"] == "1"  # what a person has set stays


def test_c_compiler_is_the_one_chosen(tmp_path: Path) -> None:
    for name in ("gcc", "ccache", "clang"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    def chosen(cc: str) -> list[str] | None:
        return c_compiler({"PATH": str(tmp_path), "CC": cc})

    gcc = str(tmp_path / "gcc")
    assert chosen("") == [gcc]
    assert chosen("ccache gcc") == [str(tmp_path / "ccache"), "gcc"]
    assert chosen("clang -m64 '-DA=b c'") == [str(tmp_path / "clang"), "-m64", "-DA=b c"]
    assert chosen("not-there -x") == chosen("'unfinished") == [gcc]
    assert c_compiler({"PATH": str(tmp_path / "none"), "CC": "gcc"}) is None
