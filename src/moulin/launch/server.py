"""One tritonserver process: started, watched, and stopped with its stubs and shared memory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.answers import answers
from moulin.launch.log import ServerLog
from moulin.launch.ports import claim_ports, reachable
from moulin.launch.server_options import ServerOptions
from moulin.launch.shared_memory import RegionOwner, sweep_orphans
from moulin.launch.stubs import has_ended, running_stubs
from moulin.launch.tritonserver import TritonInstallation, find_tritonserver

_POLL_SEC = 0.1
# Triton's exit timeout begins when it has noticed the signal, and models are unloaded after it.
_EXIT_GRACE_SEC = 5.0
_PUMP_GRACE_SEC = 2.0
_METRICS_GRACE_SEC = 2.0
_HINTED = re.compile(r"^(?P<message>.*) \(hint: (?P<hint>.*)\)$")


class TritonServer:
    """Owns one tritonserver process; a context manager that starts and stops it.

    Entering starts the process without waiting for the models: call `wait_ready`. The process has its own session, so
    that a terminal's Ctrl-C reaches only the owner, and ends with the owner even if that is killed.

    `on_line` receives every line of output, without its line end, on a thread of this object.
    """

    def __init__(
        self,
        model_repository: Path,
        options: ServerOptions | None = None,
        *,
        installation: TritonInstallation | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._repository = model_repository
        self.options = options or ServerOptions()
        self._installation = installation
        self._on_line = on_line
        self._log = ServerLog()
        self._ports: dict[str, int] = {}
        self._regions: RegionOwner | None = None
        self._stubs: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._spawn_error: OSError | None = None
        self._spawned = threading.Event()
        self._exited = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl-C running requests are not waited for.
        if isinstance(error, KeyboardInterrupt):
            self.kill()
        else:
            self.stop()

    @property
    def http_url(self) -> str:
        """`host:port` for tritonclient; after `start` with the real port instead of 0."""
        return self._url("--http-port", self.options.http_port)

    @property
    def grpc_url(self) -> str:
        """`host:port` for tritonclient."""
        return self._url("--grpc-port", self.options.grpc_port)

    @property
    def metrics_url(self) -> str:
        """The full URL for Prometheus."""
        return f"http://{self._url('--metrics-port', self.options.metrics_port)}/metrics"

    @property
    def pid(self) -> int | None:
        """None before `start`."""
        return self._process.pid if self._process else None

    @property
    def log_tail(self) -> list[str]:
        """The last 200 lines of output."""
        return self._log.tail

    def start(self) -> None:
        """Start the process; return without waiting for the models.

        Raises:
            LaunchError: no usable tritonserver, no repository, a busy port, or started before.
        """
        if self._spawned.is_set():
            raise LaunchError("Expected a new TritonServer, got one that was started before")
        if not self._repository.is_dir():
            raise LaunchError(f"Expected a model repository at {self._repository}, got no such folder")
        installation = self._installation or find_tritonserver()
        sweep_orphans()
        options = self.options
        self._ports = claim_ports(options.host, options.ports)
        self._regions = RegionOwner()
        threading.Thread(target=self._own, args=(installation,), name="tritonserver", daemon=True).start()
        self._spawned.wait()
        if self._spawn_error is not None:
            raise LaunchError(f"Expected to start {installation.binary}, got {self._spawn_error}")

    def wait_ready(self, timeout_sec: float = 120.0) -> None:
        """Wait until the server answers and all models are loaded.

        Raises:
            LaunchError: the process ended, with the reason from its log; or it was not ready in time.
        """
        deadline = time.monotonic() + timeout_sec
        while not self.is_ready():
            left_sec = deadline - time.monotonic()
            if left_sec <= 0:
                waiting_for = ", ".join(self._log.loading) or "none that its log names"
                raise LaunchError(
                    f"Expected tritonserver to be ready within {timeout_sec:g} s, "
                    f"got models still loading: {waiting_for}",
                    hint="a large model takes longer the first time; allow more time",
                )
            if self._exited.wait(min(_POLL_SEC, left_sec)):
                raise self._early_exit()
        # Triton opens gRPC, then HTTP, then metrics, and exits when the last one fails. An extra argument may switch
        # metrics off, so this wait ends without an error.
        deadline = time.monotonic() + _METRICS_GRACE_SEC
        while not self._metrics_answer() and time.monotonic() < deadline:
            if self._exited.wait(_POLL_SEC):
                raise self._early_exit()
        assert self._process is not None
        self._stubs = running_stubs(self._process.pid)

    def is_ready(self) -> bool:
        """Whether the process is alive and reports that it and all its models are ready."""
        return self._process is not None and not self._exited.is_set() and answers(self.http_url, "/v2/health/ready")

    def poll(self) -> int | None:
        """The exit code (negative: the signal), or None while it runs or has not been started."""
        return self._process.returncode if self._process and self._exited.is_set() else None

    def wait(self, timeout_sec: float | None = None) -> int | None:
        """Wait until the process has ended and is cleaned up; None when it still runs or was never started."""
        if self._process is None:
            return None
        self._exited.wait(timeout_sec)
        return self.poll()

    def lost_instances(self) -> list[str]:
        """Instances of models whose process has died since `wait_ready`; Triton still reports them as ready."""
        return sorted(instance for pid, instance in self._stubs.items() if has_ended(pid))

    def kill(self) -> None:
        """End the server and its stubs at once, without waiting for requests in flight."""
        self._signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Stop the server and its stubs; requests in flight get the exit timeout. Idempotent."""
        if self._process is None:
            return
        if not self._exited.is_set():
            self._signal(signal.SIGTERM)
            if not self._exited.wait(self.options.exit_timeout_sec + _EXIT_GRACE_SEC):
                self._signal(signal.SIGKILL)
        self._exited.wait()

    def command(self, installation: TritonInstallation) -> list[str]:
        """tritonserver's argument list."""
        options = self.options
        command = [str(installation.binary), f"--model-repository={self._repository}"]
        if installation.backends is not None:
            command.append(f"--backend-directory={installation.backends}")
        if self._regions is not None:
            command.append(f"--backend-config=python,shm-region-prefix-name={self._regions.prefix}")
        command += [f"{flag}={port}" for flag, port in self._ports.items()]
        command += [f"--{service}-address={options.host}" for service in ("http", "grpc", "metrics")]
        command.append(f"--exit-timeout-secs={options.exit_timeout_sec}")
        if options.log_verbose:
            command.append(f"--log-verbose={options.log_verbose}")
        if not options.auto_complete_config:
            command.append("--disable-auto-complete-config")
        return [*command, *options.extra_args]

    def _url(self, flag: str, port: int) -> str:
        return reachable(self.options.host, self._ports.get(flag, port))

    def _own(self, installation: TritonInstallation) -> None:
        """The thread that starts the process, waits for its end, and cleans up after it.

        The kernel sends the parent-death signal when the *thread* that started the process ends, so this thread must
        outlive the process.
        """
        try:
            process = self._spawn(installation)
        except OSError as error:
            self._spawn_error = error
            self._release_regions()
            self._exited.set()
            self._spawned.set()
            return
        self._process = process
        self._spawned.set()
        pump = threading.Thread(target=self._pump, args=(process,), name="tritonserver-log", daemon=True)
        pump.start()
        # WNOWAIT reserves the process id, and so the group's, until the stubs that Triton leaves behind when it fails
        # (on a busy port, for example) are ended.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # A daemon started by a model may keep the pipe open.
        pump.join(_PUMP_GRACE_SEC)
        self._release_regions()
        self._exited.set()

    def _release_regions(self) -> None:
        if self._regions is not None:
            self._regions.close()

    def _spawn(self, installation: TritonInstallation) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]
        return subprocess.Popen(
            [*launcher, *self.command(installation)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=installation.environment(os.environ),
            start_new_session=True,
        )

    def _pump(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip("\r\n")
                self._log.feed(line)
                if self._on_line is not None:
                    # A failing listener must not stop reading: the server blocks when its pipe is full.
                    with contextlib.suppress(Exception):
                        self._on_line(line)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _metrics_answer(self) -> bool:
        address, _, _ = self.metrics_url.removeprefix("http://").partition("/")
        return answers(address, "/metrics")

    def _early_exit(self) -> LaunchError:
        code = self.poll() or 0
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        reason = self._log.reason or next((line for line in reversed(self._log.tail) if line.strip()), "no output")
        hinted = _HINTED.match(reason)
        message, hint = (hinted["message"], hinted["hint"]) if hinted else (reason, None)
        return LaunchError(f"Expected tritonserver to become ready, got: {how}: {message}", hint=hint)
