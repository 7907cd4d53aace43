"""Checks of this machine for everything that serving needs. Returns data, which the command line renders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moulin.errors import MoulinError, first_line
from moulin.extras import install_hint
from moulin.launch.cache import cache_dir
from moulin.launch.descriptors import triton_needs
from moulin.launch.interpreters import Interpreter
from moulin.launch.ports import port_is_free
from moulin.launch.serving_environment import NEEDED_MIB, interpreter_to_use
from moulin.launch.tensorrt_libraries import LIBRARIES, Library
from moulin.launch.threads import HINT as MORE_THREADS
from moulin.launch.threads import service_needs, startable
from moulin.launch.tritonserver import NoTriton, TritonInstallation, find_tritonserver
from moulin.processor import c_compiler, num_cores, this_processor

GATEWAY_MODULES = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "websockets": "websockets",
    "multipart": "python-multipart",
    "pydantic": "pydantic",
    "prometheus_client": "prometheus-client",
}
"""Modules that the gateway imports, and their packages."""

_SHM_FREE_MIB = 64
_CACHE_FREE_MIB = 64
"""Space for a model repository (links to the model) and the gateway's uploads."""


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
    gateway_port: int | None = 9000,
    host: str = "127.0.0.1",
    tritonserver: Path | None = None,
    shm_dir: Path = Path("/dev/shm"),
    cache: Path | None = None,
) -> list[Check]:
    """All checks, in the order of display; takes about a second, creates nothing and never raises.

    `gateway_port` None leaves out the gateway.
    """
    cache = cache or cache_dir()
    with_gateway = gateway_port is not None
    ports = {"--http-port": http_port, "--grpc-port": grpc_port, "--metrics-port": metrics_port}
    if gateway_port is not None:
        ports["--gateway-port"] = gateway_port
    checks: list[Callable[[], list[Check]]] = [
        _python,
        lambda: _triton(tritonserver, cache),
        lambda: [_imported("numpy", "numpy", install_hint("serve"))],
        lambda: [_package("onnx", "onnx", True, install_hint("serve"))],
        _onnxruntime,
        lambda: [_package("OpenVINO (--engine openvino)", "openvino", False, install_hint("serve,openvino"))],
        lambda: [Check("processor", True, False, _products())],
        lambda: [_compiler()],
        lambda: [_package("kaldi-native-fbank", "kaldi_native_fbank", True, install_hint("serve"))],
        _soundfile,
        lambda: [_imported("soxr", "soxr", install_hint("serve"))],
        lambda: [_imported("tritonclient", "tritonclient.grpc", install_hint("serve"))],
        lambda: [_package("PyAV (M4A, WebM, video)", "av", with_gateway, install_hint("media"))],
        lambda: [
            _package(package, module, with_gateway, install_hint("gateway"))
            for module, package in GATEWAY_MODULES.items()
        ],
        lambda: [_package("PyTorch (checkpoints)", "torch", False, install_hint("serve,torch"))],
        _gpu,
        lambda: [_tensorrt(library) for library in LIBRARIES],
        lambda: [_port(host, port, flag, ports) for flag, port in ports.items()],
        lambda: [_shared_memory(shm_dir), _cache(cache), _open_files(), _threads()],
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Check]:
    ok = (3, 11) <= sys.version_info[:2] < (3, 15)
    hint = None if ok else "use Python 3.11, 3.12, 3.13 or 3.14"
    return [Check("Python", ok, True, f"{platform.python_version()}, {sys.executable}", hint)]


def _triton(binary: Path | None, cache: Path) -> list[Check]:
    try:
        found = find_tritonserver(binary, cache=cache, make=False)
    except NoTriton:
        return [_environment_to_make(cache)]
    except MoulinError as error:
        return [Check("tritonserver", False, True, error.message, error.hint)]
    origin = "nvidia-pytriton" if found.source == "pip" else "tritonserver"
    stub = found.python_stub
    return [
        _environment(found),
        Check("tritonserver", True, True, f"{origin} {found.version or '(unknown version)'}, {found.binary}"),
        Check(
            "python stub",
            stub is not None,
            True,
            str(stub) if stub else f"none beside {found.binary}",
            None if stub else "install a tritonserver with the python backend",
        ),
        *([Check("libpython", True, True, str(found.libpython_dir))] if found.libpython_dir else []),
    ]


def _environment(found: TritonInstallation) -> Check:
    """The Python in which the models run."""
    serving = found.serving
    if serving is not None:
        detail = f"Python {serving.interpreter.version}, numpy {serving.numpy}, moulin's own in {serving.folder}"
    else:
        detail = f"Python {platform.python_version()}, numpy {_version('numpy')}, this one"
    return Check("serving environment", True, True, detail)


def _environment_to_make(cache: Path) -> Check:
    """Whether `moulin serve` could create a serving environment."""
    name = "serving environment"
    try:
        source = interpreter_to_use(cache)
    except MoulinError as error:
        return Check(name, False, True, error.message, error.hint)
    if isinstance(source, Interpreter):
        how = f"with Python {source.version} ({source.executable})"
    else:
        how = f"with a Python that uv downloads ({source})"
    free_mib = _free_mib(cache)
    if free_mib < NEEDED_MIB:
        detail = f"not made yet; {free_mib} MiB free for it in {cache}, of {NEEDED_MIB} MiB"
        return Check(name, False, True, detail, "free some space, or set XDG_CACHE_HOME to a disk with space")
    when = f"`moulin serve` makes one in {cache} at its first start"
    return Check(name, True, True, f"not made yet: {when}, {how} and with packages from pip's index")


def _onnxruntime() -> list[Check]:
    try:
        import onnxruntime

        detail = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    except Exception as error:  # a broken native library raises whatever it likes
        return [Check("onnxruntime", False, True, first_line(error), install_hint("serve"))]
    return [Check("onnxruntime", True, True, detail)]


def _products() -> str:
    """The processor, and who multiplies in what on it."""
    processor = this_processor()
    openvino = importlib.util.find_spec("openvino") is not None
    bf16 = "openvino (--precision bf16)" if openvino else "openvino, which is not installed"
    return (
        f"{processor}; bf16: {bf16 if processor.multiplies_bf16 else 'no'}; "
        f"int8: {'its own instructions' if processor.multiplies_int8 else 'without instructions of its own'}; "
        f"cores for one request: {num_cores()}"
    )


def _compiler() -> Check:
    """What compiles our operators for ONNX Runtime on a CPU."""
    found = c_compiler()
    hint = None if found else "apt install gcc libc6-dev"
    return Check(
        "C compiler (faster encoders on a CPU)", found is not None, False, " ".join(found or ["not found"]), hint
    )


def _soundfile() -> list[Check]:
    try:
        import soundfile

        detail = f"{soundfile.__version__}, {', '.join(sorted(soundfile.available_formats()))}"
    except Exception as error:  # OSError when libsndfile is missing, ImportError when soundfile is
        return [Check("soundfile", False, True, first_line(error), "pip install soundfile")]
    return [Check("soundfile", True, True, detail)]


def _imported(package: str, module: str, hint: str) -> Check:
    """A required package, checked by importing it, which is fast enough for this one."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken native library raises whatever it likes
        return Check(package, False, True, first_line(error), hint)
    return Check(package, True, True, _version(package))


def _package(name: str, module: str, required: bool, hint: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(name, False, required, "not installed", hint)
    package = GATEWAY_MODULES.get(module, module)
    return Check(name, True, required, _version(package))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


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


def _tensorrt(library: Library) -> Check:
    """A library behind `--engine tensorrt`, with the GPUs that it serves."""
    installed = library.installed
    name = f"{library.name} (--engine tensorrt)"
    return Check(
        name, installed is not None, False, f"{installed or 'not installed'}; for {library.cards}", library.hint
    )


def _port(host: str, port: int, flag: str, ports: dict[str, int]) -> Check:
    if port and list(ports.values()).count(port) > 1:
        return Check(f"port {port}", False, True, "wanted twice", f"choose another {flag}")
    if port == 0 or port_is_free(host, port):
        return Check(f"port {port}", True, True, f"free ({flag})")
    return Check(f"port {port}", False, True, f"in use ({flag})", f"stop what listens there, or choose another {flag}")


def _shared_memory(shm_dir: Path) -> Check:
    try:
        free_mib = shutil.disk_usage(shm_dir).free // 2**20
    except OSError as error:
        return Check("shared memory", False, True, first_line(error), f"mount a tmpfs at {shm_dir}")
    ok = free_mib >= _SHM_FREE_MIB
    hint = None if ok else "start the container with --shm-size=1g"
    return Check("shared memory", ok, True, f"{free_mib} MiB free in {shm_dir}", hint)


def _open_files() -> Check:
    """The hard limit, to which `moulin serve` raises its own; for one model."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = triton_needs(1)
    unlimited = hard == resource.RLIM_INFINITY
    ok = unlimited or hard >= needed
    limit = "no limit" if unlimited else f"{hard} at most (ulimit -Hn)"
    return Check("open files", ok, True, limit, None if ok else f"allow {needed} or more: ulimit -n 65536")


def _threads() -> Check:
    """Whether a service of two models, with its gateway, could start its threads now."""
    needed = service_needs(2, gateways=1)
    possible = startable(needed)
    detail = f"{possible} of {needed} can be started"
    return Check("threads", possible >= needed, True, detail, None if possible >= needed else MORE_THREADS)


def _cache(cache: Path) -> Check:
    """Whether the cache folder, or the folder in which it will be created, is writable and has space."""
    there = _existing(cache)
    hint = "set XDG_CACHE_HOME to a folder that you can write, with some space"
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check("cache", False, True, f"{cache} cannot be written", hint)
    free_mib = _free_mib(cache)
    ok = free_mib >= _CACHE_FREE_MIB
    return Check("cache", ok, True, f"{free_mib} MiB free in {cache}", None if ok else hint)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _free_mib(folder: Path) -> int:
    try:
        return shutil.disk_usage(_existing(folder)).free // 2**20
    except OSError:
        return 0
