"""Looks at this machine and says what works and what is missing. Data only: the command line renders it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moulin.errors import MoulinError, first_line
from moulin.launch.ports import port_is_free
from moulin.launch.tritonserver import find_libpython, find_tritonserver

_SHM_FREE_MIB = 64
_ENGINE_HINT = "pip install 'moulin[serve]'"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `required` says whether `moulin serve` needs it."""

    name: str
    ok: bool
    required: bool
    detail: str
    hint: str | None = None


def examine(
    *,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    host: str = "127.0.0.1",
    tritonserver: Path | None = None,
    shm_dir: Path = Path("/dev/shm"),
) -> list[Check]:
    """Every check, in the order a reader wants them; takes about a second and never raises."""
    checks: list[Callable[[], list[Check]]] = [
        _python,
        lambda: _tritonserver(tritonserver),
        _libpython,
        _onnxruntime,
        lambda: [_package("kaldi-native-fbank", "kaldi_native_fbank", True, _ENGINE_HINT)],
        _soundfile,
        lambda: [_package("PyAV (M4A, WebM, video)", "av", False, "pip install 'moulin[media]'")],
        _gpu,
        lambda: [
            _port(host, http_port, "--http-port"),
            _port(host, grpc_port, "--grpc-port"),
            _port(host, metrics_port, "--metrics-port"),
        ],
        lambda: [_shared_memory(shm_dir)],
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Check]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = (3, 11) <= sys.version_info[:2] < (3, 13)
    return [Check("Python", ok, True, version, None if ok else "use Python 3.11 or 3.12")]


def _tritonserver(binary: Path | None) -> list[Check]:
    try:
        found = find_tritonserver(binary)
    except MoulinError as error:
        return [Check("tritonserver", False, True, error.message, error.hint)]
    origin = "nvidia-pytriton" if found.source == "pip" else "tritonserver"
    stub = found.python_stub
    return [
        Check("tritonserver", True, True, f"{origin} {found.version or '(unknown version)'}, {found.binary}"),
        Check(
            "python stub",
            stub is not None,
            True,
            str(stub) if stub else f"none beside {found.binary}",
            None if stub else "install a tritonserver with the python backend",
        ),
    ]


def _libpython() -> list[Check]:
    found = find_libpython()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if found is None:
        hint = f"make system, or apt-get install libpython{version}"
        return [Check("libpython", False, True, f"libpython{version}.so.1.0 not found", hint)]
    return [Check("libpython", True, True, str(found))]


def _onnxruntime() -> list[Check]:
    try:
        import onnxruntime

        detail = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    except Exception as error:  # a broken native library raises whatever it likes
        return [Check("onnxruntime", False, True, first_line(error), _ENGINE_HINT)]
    return [Check("onnxruntime", True, True, detail)]


def _soundfile() -> list[Check]:
    try:
        import soundfile

        detail = f"{soundfile.__version__}, {', '.join(sorted(soundfile.available_formats()))}"
    except Exception as error:  # OSError when libsndfile is missing, ImportError when soundfile is
        return [Check("soundfile", False, True, first_line(error), "pip install soundfile")]
    return [Check("soundfile", True, True, detail)]


def _package(name: str, module: str, required: bool, hint: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(name, False, required, "not installed", hint)
    try:
        version = importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        version = "installed"
    return Check(name, True, required, version)


def _gpu() -> list[Check]:
    hint = "without an NVIDIA GPU and driver, models run on the CPU"
    program = shutil.which("nvidia-smi")
    if program is None:
        return [Check("GPU", False, False, "nvidia-smi not found", hint)]
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Check("GPU", False, False, first_line(error), hint)]
    gpus = "; ".join(line.strip() for line in answer.stdout.splitlines() if line.strip())
    if answer.returncode != 0 or not gpus:
        return [Check("GPU", False, False, gpus or "nvidia-smi sees no GPU", hint)]
    return [Check("GPU", True, False, gpus)]


def _port(host: str, port: int, flag: str) -> Check:
    if port == 0 or port_is_free(host, port):
        return Check(f"port {port}", True, True, f"free ({flag})")
    return Check(f"port {port}", False, True, "in use", f"stop what listens there, or choose another {flag}")


def _shared_memory(shm_dir: Path) -> Check:
    try:
        free_mib = shutil.disk_usage(shm_dir).free // 2**20
    except OSError as error:
        return Check("shared memory", False, True, first_line(error), f"mount a tmpfs at {shm_dir}")
    ok = free_mib >= _SHM_FREE_MIB
    hint = None if ok else "start the container with --shm-size=1g"
    return Check("shared memory", ok, True, f"{free_mib} MiB free in {shm_dir}", hint)
