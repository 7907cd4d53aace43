"""The processes in which a tritonserver runs its python models, one for each instance of a model.

Triton neither starts one again that has died nor says that it misses one: its model stays ready, and every request
fails.
"""

from __future__ import annotations

from pathlib import Path

_PROGRAM = "triton_python_backend_stub"
_INSTANCE_ARGUMENT = -2  # the last but one; "DEFAULT", the kind of the instance's parameters, is the last


def running_stubs(server_pid: int, proc_dir: Path = Path("/proc")) -> dict[int, str]:
    """The process ids of a server's stubs, and the instances that they run, such as `transducer_0_0`."""
    stubs = {}
    for process in proc_dir.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if arguments and Path(arguments[0]).name == _PROGRAM and _stat(process)[1] == str(server_pid):
                stubs[int(process.name)] = arguments[_INSTANCE_ARGUMENT]
        except OSError:
            continue
    return stubs


def has_ended(pid: int, proc_dir: Path = Path("/proc")) -> bool:
    """Whether a child of somebody else has ended; it may lie there as a zombie for as long as its parent lives."""
    try:
        return _stat(proc_dir / str(pid))[0] == "Z"
    except OSError:
        return True


def _stat(process: Path) -> list[str]:
    """State, parent and the rest; the program's name before them may hold spaces."""
    return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
