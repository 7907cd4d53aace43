"""The stub processes in which a tritonserver runs its python models, one for each instance of a model.

Triton neither restarts a stub that has died nor reports it: the model stays ready, and every request fails.
"""

from __future__ import annotations

import signal
from pathlib import Path

from moulin.launch.vital_signs import stat_fields

_PROGRAM = "triton_python_backend_stub"
_EXIT_CODE = 49  # the last field of /proc/PID/stat, behind the program's name
_INSTANCE_ARGUMENT = -2  # the last argument is "DEFAULT", the kind of the instance's parameters


def running_stubs(server_pid: int, proc_dir: Path = Path("/proc")) -> dict[int, str]:
    """The process ids of a server's stubs, each with its instance, for example `transducer_0_0`."""
    stubs = {}
    for process in proc_dir.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if arguments and Path(arguments[0]).name == _PROGRAM and stat_fields(process)[1] == str(server_pid):
                stubs[int(process.name)] = arguments[_INSTANCE_ARGUMENT]
        except OSError:
            continue
    return stubs


def how_it_ended(pid: int, proc_dir: Path = Path("/proc")) -> str | None:
    """The signal or exit code of another process's child that remains as a zombie; None where nobody can know."""
    try:
        status = int(stat_fields(proc_dir / str(pid))[_EXIT_CODE])
    except (OSError, IndexError, ValueError):
        return None
    if number := status & 0x7F:
        return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"exit code {status >> 8}"


def has_ended(pid: int, proc_dir: Path = Path("/proc")) -> bool:
    """Whether another process's child has ended; it may remain as a zombie while its parent lives."""
    try:
        return stat_fields(proc_dir / str(pid))[0] == "Z"
    except OSError:
        return True
