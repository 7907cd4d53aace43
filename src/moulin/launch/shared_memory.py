"""The python backend's shared memory regions, and the removal of those of killed servers.

Every server names its regions `moulin-<random>-<owner pid>-...`, which is also an argument of each python stub.
The process that owns a server holds a lock on the file `moulin-<random>.owner` beside them. So a later process can tell
whether the owner still runs, also where containers share /dev/shm without seeing each other's processes. The pid is
there for people who look. A server that is about to end has a file `moulin-<random>-draining` too, by which its models
know: Triton refuses new sequences then, but not new streams of a lane.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.file_lock import FileLock, owner_is_gone

SHM_DIR = Path("/dev/shm")
STUB_REGION, STUB_GROWTH = 2, 4
"""The arguments of a stub that name its shared memory, and by how many bytes that grows."""
_MIB_PER_INSTANCE = 4
_REGIONS, _REGION_MIB = 64, 8
_NAME = re.compile(r"^moulin-(?P<token>[0-9a-f]{16})-\d+-")


class RegionOwner:
    """The ownership of one server's regions in `shm_dir`, until `close` or the end of this process."""

    def __init__(self, shm_dir: Path = SHM_DIR) -> None:
        """Raises LaunchError where the folder cannot be written."""
        self._token = token = secrets.token_hex(8)
        self.prefix = f"moulin-{token}-{os.getpid()}-"
        """A `shm-region-prefix-name` that no other server has."""
        self._dir, self._file = shm_dir, shm_dir / f"moulin-{token}.owner"
        new = self._file.with_suffix(".new")
        try:
            self._lock = FileLock(new)
            new.rename(self._file)  # locked before it has the name under which others would look at it
        except OSError as error:
            raise LaunchError(
                f"Expected shared memory that can be written in {shm_dir}, got: {error.strerror or error}",
                hint="mount a tmpfs there; start a container with --shm-size=1g",
            ) from error

    def note_draining(self) -> None:
        """Let the models know that the server is about to end."""
        with contextlib.suppress(OSError):
            _draining_file(self._dir, self._token).touch()

    def close(self) -> None:
        """Delete the regions, and the files beside them. Idempotent."""
        for file in (*self._dir.glob(f"{self.prefix}*"), _draining_file(self._dir, self._token), self._file):
            with contextlib.suppress(OSError):
                file.unlink()
        self._lock.release()


class DrainNote:
    """Whether the server of this process, a python stub, is about to end. Of a server that moulin did not start nobody
    knows."""

    def __init__(self, region: str, shm_dir: Path = SHM_DIR) -> None:
        """`region` is the name of the stub's shared memory."""
        named = _NAME.match(region.lstrip("/"))
        self._file = _draining_file(shm_dir, named["token"]) if named else None

    @classmethod
    def of_this_process(cls) -> Self:
        arguments = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")
        return cls(arguments[STUB_REGION] if len(arguments) > STUB_REGION else "")

    def __bool__(self) -> bool:
        return self._file is not None and self._file.exists()


def _draining_file(shm_dir: Path, token: str) -> Path:
    return shm_dir / f"moulin-{token}-draining"


def region_bytes(shm_dir: Path = SHM_DIR) -> int:
    """How large a region is at first, and by how much it grows; its pages are taken at once.

    Triton's megabyte makes the region of a busy model grow again and again, and each time both processes map all of it
    once more. A sixty-fourth of what is free leaves room for any number of models.
    """
    return min(max(shutil.disk_usage(shm_dir).free // _REGIONS >> 20, 1), _REGION_MIB) << 20


def expect_shared_memory(num_instances: int, shm_dir: Path = SHM_DIR) -> None:
    """Raises LaunchError where there is not even room for instances of models without a request.

    The process of each begins with a megabyte, and takes another one with its first requests.
    """
    needed_mib = _MIB_PER_INSTANCE * num_instances
    try:
        free_mib = shutil.disk_usage(shm_dir).free // 2**20
    except OSError as error:
        raise LaunchError(
            f"Expected shared memory in {shm_dir}, got: {error.strerror or error}", hint=f"mount a tmpfs at {shm_dir}"
        ) from error
    if free_mib < needed_mib:
        raise LaunchError(
            f"Expected at least {needed_mib} MiB of shared memory free in {shm_dir}, got {free_mib} MiB",
            hint="start the container with --shm-size=1g, or remove what fills it",
        )


def sweep_orphans(shm_dir: Path = SHM_DIR, proc_dir: Path = Path("/proc")) -> list[str]:
    """End python stubs and delete regions whose owning moulin process is gone; return the regions' names.

    tritonserver leaves its stubs running when it exits because a port is busy, for example. Regions of other users are
    not touched, nor those of a tritonserver that is still shutting down after its owner died; one that was stopped
    (SIGSTOP) is woken, so that it can do so.
    """
    removed = []
    for file in shm_dir.glob("moulin-*.owner"):
        if (lock := owner_is_gone(file)) is None:
            continue
        token = file.name.removeprefix("moulin-").removesuffix(".owner")
        if _servers_end(token, proc_dir):
            _end_stubs(token, proc_dir)
            for region in shm_dir.glob(f"moulin-{token}-*"):
                with contextlib.suppress(OSError):
                    region.unlink()
                    removed.append(region.name)
            with contextlib.suppress(OSError):
                file.unlink()
        lock.release()
    return removed


def _servers_end(token: str, proc_dir: Path) -> bool:
    """Whether no tritonserver with regions of `token` is left; those that are stopped go on, to their end."""
    left = list(_processes("tritonserver", token, proc_dir))
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)
    return not left


def _end_stubs(token: str, proc_dir: Path) -> None:
    for pid in _processes("triton_python_backend_stub", token, proc_dir):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _processes(program: str, token: str, proc_dir: Path) -> Iterator[int]:
    """Processes of this namespace that run `program` with regions of `token` among their arguments."""
    for process in proc_dir.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            regions = (_NAME.match(argument.rpartition("shm-region-prefix-name=")[2]) for argument in arguments)
            if Path(arguments[0]).name == program and any(match and match["token"] == token for match in regions):
                yield int(process.name)
