"""Builders of an engine from an ONNX file: the Python API of TensorRT or TensorRT-RTX, or trtexec."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moulin.errors import EngineError
from moulin.launch.tensorrt_libraries import (
    TENSORRT_RTX,
    Library,
    LibraryName,
    architecture_of,
    install_hints,
    library_for,
)
from moulin.tensorrt_engine.library_log import Listener, Say, listening, logger_of
from moulin.tensorrt_engine.profiles import Profile, Range, Shape

_TRTEXEC_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
_GIB = 2**30

TRIALS_GIB = 4.0
"""The limit on memory for TensorRT's trials of kernels; without one it has taken more than the GPU has. TensorRT-RTX
tries nothing when it builds: its workspace is the memory of the engine's own intermediate results."""

_WHOLE_LOG = "`moulin trt build --verbose` shows its whole log; after an internal error, try --precision fp32"
_SHORT_OF_MEMORY = (
    "a smaller --max-batch or --max-seconds (of the service --max-audio-sec) needs less; or give it to "
    "`moulin trt build --workspace-gib`, whose engine the service takes"
)


@dataclass(frozen=True)
class BuildRequest:
    """An ONNX file to build a plan from. The plan computes in the graph's own types ("strongly typed")."""

    onnx: Path
    plan: Path
    profiles: Sequence[Profile]
    workspace_gib: float | None
    """The limit on memory; None for no limit."""


class Builder(Protocol):
    @property
    def library(self) -> LibraryName:
        """The library whose plans it writes."""

    @property
    def version(self) -> str:
        """The library's version, for example 10.3.0."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities to build for, for example 8.9; empty: that of the GPU of this machine."""

    @property
    def usual_workspace_gib(self) -> float | None:
        """The limit on memory where nobody asks for one; None for no limit."""

    def build(self, request: BuildRequest) -> None:
        """Write the plan. Raises EngineError with TensorRT's reason."""


def find_builder(capability: str, *, say: Say | None = None, log: Say | None = None) -> Builder:
    """The builder for a GPU of this machine: the Python API of the first library that serves its compute capability
    (for example 8.9), else trtexec.

    `say` receives lines about the build's progress, `log` the library's own log. Raises EngineError where there is
    neither.
    """
    try:
        return PythonBuilder(*library_for(capability), capability=capability, say=say, log=log)
    except EngineError as error:
        reason = error
    places = [shutil.which("trtexec"), *_TRTEXEC_PLACES]
    for place in places:
        if place is not None and Path(place).is_file():
            return TrtexecBuilder(Path(place), log=log)
    raise EngineError(
        f"{reason.message}; and trtexec is not installed",
        hint="run it in NVIDIA's container (nvcr.io/nvidia/tritonserver has TensorRT), or "
        f"{install_hints(capability)}; --dry-run shows what would be built",
    ) from reason


def builder_ahead(capability: str, *, say: Say | None = None, log: Say | None = None) -> PythonBuilder:
    """TensorRT-RTX's builder for all GPUs of the architecture of `capability`, which needs no GPU here; `say` and `log`
    as for `find_builder`.

    Raises EngineError where TensorRT-RTX is not installed.
    """
    return PythonBuilder(TENSORRT_RTX, TENSORRT_RTX.load(), capability=capability, say=say, log=log)


class TrtexecBuilder:
    """The command line tool that comes with TensorRT."""

    def __init__(self, binary: Path, *, log: Say | None = None) -> None:
        """`log` receives what it prints. Raises EngineError where `binary` does not print its version."""
        self._binary, self._log = binary, log
        self._version = self._read_version()

    @property
    def library(self) -> LibraryName:
        return "TensorRT"

    @property
    def version(self) -> str:
        return self._version

    @property
    def capabilities(self) -> tuple[str, ...]:
        return ()

    @property
    def usual_workspace_gib(self) -> float | None:
        return TRIALS_GIB

    def build(self, request: BuildRequest) -> None:
        done = _run([str(self._binary), *trtexec_arguments(request)])
        if self._log is not None:
            for line in done.stdout.splitlines():
                self._log(f"  {line}")
        if done.returncode != 0 or not request.plan.is_file():
            errors = re.findall(r"\[E\] (.*)", done.stdout)
            reason = errors[0] if errors else f"exit status {done.returncode}"
            raise EngineError(
                f"trtexec could not build the engine: {reason}",
                hint=f"run it yourself: {shlex.join([self._binary.name, *trtexec_arguments(request)])}",
            )

    def _read_version(self) -> str:
        printed = _run([str(self._binary), "--help"]).stdout
        match = re.search(r"\[TensorRT v(\d+)\]", printed)
        if match is None:
            raise EngineError(f"Expected {self._binary} --help to print its version, got {printed[:80]!r}")
        number = int(match[1])
        # Version 8.6.1 is printed as 8601, 10.3.0 as 100300.
        major, rest = divmod(number, 10_000) if number >= 100_000 else divmod(number, 1000)
        return f"{major}.{rest // 100}.{rest % 100}"


def trtexec_arguments(request: BuildRequest) -> list[str]:
    """trtexec's arguments for `request`."""
    arguments = [
        f"--onnx={request.onnx}",
        f"--saveEngine={request.plan}",
        "--stronglyTyped",
        *([f"--memPoolSize=workspace:{round(1024 * request.workspace_gib)}M"] if request.workspace_gib else []),
        "--skipInference",
    ]
    for number, profile in enumerate(request.profiles):
        if len(request.profiles) > 1:
            arguments.append(f"--profile={number}")
        for flag, pick in _PICKS:
            arguments.append(f"--{flag}=" + ",".join(f"{name}:{_spelled(pick(r))}" for name, r in profile.items()))
    return arguments


_PICKS: tuple[tuple[str, Callable[[Range], Shape]], ...] = (
    ("minShapes", lambda found: found.least),
    ("optShapes", lambda found: found.best),
    ("maxShapes", lambda found: found.largest),
)


def _spelled(shape: Shape) -> str:
    return "x".join(map(str, shape))


class PythonBuilder:
    """The Python API of TensorRT 10 and later, or of TensorRT-RTX."""

    def __init__(
        self, library: Library, module: Any, *, capability: str, say: Say | None = None, log: Say | None = None
    ) -> None:
        """`module` is the library's; `say` receives lines about the build's progress, `log` the library's own log.

        TensorRT builds on the GPU in use. TensorRT-RTX builds without one, and here for all compute capabilities of the
        architecture of `capability`: a plan from another machine and one built on the GPU itself are the same.
        """
        self._library, self._tensorrt, self._say, self._log = library, module, say, log
        self._capabilities = architecture_of(capability) if library is TENSORRT_RTX else ()

    @property
    def library(self) -> LibraryName:
        return self._library.name

    @property
    def version(self) -> str:
        return library_version(self._tensorrt)

    @property
    def capabilities(self) -> tuple[str, ...]:
        return self._capabilities

    @property
    def usual_workspace_gib(self) -> float | None:
        return None if self._library is TENSORRT_RTX else TRIALS_GIB

    def build(self, request: BuildRequest) -> None:
        with listening(self._tensorrt, self._log) as listener:
            builder = self._tensorrt.Builder(logger_of(self._tensorrt))
            network = self._parsed(builder, request.onnx)
            config = self._configured(builder, request, listener)
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                raise EngineError(
                    f"{self.library} could not build the engine: {listener.reason}",
                    hint=_SHORT_OF_MEMORY if listener.needed_bytes else _WHOLE_LOG,
                )
            request.plan.write_bytes(bytes(plan))

    def parse(self, onnx: Path) -> None:
        """Raises EngineError where the library's parser does not accept the file `onnx`."""
        self._parsed(self._tensorrt.Builder(logger_of(self._tensorrt)), onnx)

    def _parsed(self, builder: Any, onnx: Path) -> Any:
        """The network of the file `onnx`."""
        trt = self._tensorrt
        # Since TensorRT 11 every network is strongly typed, and the flag may not exist.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, logger_of(trt))
        if not parser.parse_from_file(str(onnx)):
            errors = [str(parser.get_error(number)) for number in range(parser.num_errors)]
            reason = errors[0] if errors else "it gives no reason"
            raise EngineError(f"{self.library} does not accept the encoder: {reason}")
        return network

    def _configured(self, builder: Any, request: BuildRequest, listener: Listener) -> Any:
        """The builder's configuration for `request`."""
        trt = self._tensorrt
        config = builder.create_builder_config()
        if request.workspace_gib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, round(request.workspace_gib * _GIB))
        if self._capabilities:
            config.num_compute_capabilities = len(self._capabilities)
        for number, capability in enumerate(self._capabilities):
            known = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
            if known is None or not config.set_compute_capability(known, number):
                raise EngineError(f"{self.library} {self.version} does not build for compute capability {capability}")
        for wanted in request.profiles:
            profile = builder.create_optimization_profile()
            for name, found in wanted.items():
                profile.set_shape(name, found.least, found.best, found.largest)
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(f"{self.library} refuses the profile {_written(wanted)}: {listener.reason}")
        if self._say is not None:
            config.progress_monitor = _progress_monitor(trt, self._say)
        return config


def library_version(module: Any) -> str:
    """The version of TensorRT's or TensorRT-RTX's module, to three numbers."""
    return ".".join(module.__version__.split(".")[:3])


def _written(profile: Profile) -> str:
    return ", ".join(f"{name} {_spelled(r.least)} to {_spelled(r.largest)}" for name, r in profile.items())


def _progress_monitor(trt: Any, say: Say) -> Any:
    """A progress monitor that reports the outermost of TensorRT's nested build phases, with their times."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._started: dict[str, float] = {}

        def phase_start(self, phase: str, parent: str | None, num_steps: int) -> None:
            if parent is None:
                self._started[phase] = time.monotonic()
                say(f"  {phase}: {num_steps} steps ...")

        def step_complete(self, _phase: str, _step: int) -> bool:
            return True  # continue the build

        def phase_finish(self, phase: str) -> None:
            if phase in self._started:
                say(f"  {phase}: {time.monotonic() - self._started.pop(phase):.0f} s")

    return Monitor()


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error.strerror or error}") from error
