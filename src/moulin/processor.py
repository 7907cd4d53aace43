"""What this machine's processor computes with: the instruction sets that decide between engines and precisions, its
cores, and the compiler for our own operators."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
    "i8mm": "I8MM",
}
"""Linux' flags of x86-64 and aarch64 that matter for matrix products, and what they are called."""


_LOADING_THREADS = 4


def load_with_few_threads(cores: int) -> None:
    """Let PyTorch, which this process has not imported yet, load a model with few of the `cores` that it has: its
    threads wait for each other by spinning, and where several processes load on the same cores each small operation of
    a load waits for a turn of all of them (eight that load beside each other on 32 cores: 75 s instead of 9)."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, min(cores, _LOADING_THREADS))))


@dataclass(frozen=True, slots=True)
class Processor:
    """`flags` are Linux' names for the instruction sets."""

    name: str
    flags: frozenset[str]

    @property
    def multiplies_bf16(self) -> bool:
        """Whether products in bfloat16 are faster than in single precision."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})

    @property
    def multiplies_int8(self) -> bool:
        """Whether there are instructions for products of eight-bit integers."""
        return bool(self.flags & {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"})

    @property
    def is_virtual(self) -> bool:
        """Whether this is a virtual machine that says so, as those on x86-64 do."""
        return "hypervisor" in self.flags

    def __str__(self) -> str:
        known = [name for flag, name in _FLAGS.items() if flag in self.flags]
        return f"{self.name} ({', '.join(known) or 'no vector instructions that moulin knows'})"


@lru_cache
def this_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor as Linux describes it; without flags where there is no `cpuinfo`."""
    try:
        fields = dict(_fields(cpuinfo.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        fields = {}
    flags = fields.get("flags") or fields.get("Features") or ""
    return Processor(fields.get("model name") or platform.machine(), frozenset(flags.split()))


def num_cores(
    cpus: Collection[int] | None = None,
    *,
    processor: Processor | None = None,
    topology: Path = Path("/sys/devices/system/cpu"),
) -> int:
    """Cores behind `cpus`, by default those that this process may run on.

    Two CPUs may be one core, whose threads slow each other down. Most virtual machines that are given such pairs do not
    say so: where one shows no pair at all, every two of its CPUs are taken for a core.
    """
    cpus = os.sched_getaffinity(0) if cpus is None else cpus
    pairs = {_siblings(cpu, topology) for cpu in cpus}
    if len(pairs) == len(cpus) and (processor or this_processor()).is_virtual:
        return -(-len(cpus) // 2)
    return len(pairs)


def c_compiler(environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """The command of this machine's C compiler, if it has one: `$CC`, which may have arguments, or what is on PATH."""
    try:
        chosen = shlex.split(environ.get("CC", ""))
    except ValueError:  # a quotation without an end
        chosen = []
    for name, *arguments in (chosen or ["cc"], ["cc"], ["gcc"], ["clang"]):
        if found := shutil.which(name, path=environ.get("PATH")):
            return [found, *arguments]
    return None


def _siblings(cpu: int, topology: Path) -> str:
    """The CPUs of the core that `cpu` is of, as Linux lists them; `cpu` alone where it does not."""
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is that of kernels before 5.3
        try:
            return (topology / f"cpu{cpu}" / "topology" / name).read_text().strip()
        except OSError:
            continue
    return str(cpu)


def _fields(cpuinfo: str) -> Iterator[tuple[str, str]]:
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()
