"""One tritonserver process: started, watched, and stopped with its stubs and shared memory."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.answers import Probe, answers
from moulin.launch.closed_protocols import closed_protocols
from moulin.launch.liveness import Failure, LoadLiveness, ProcessLiveness
from moulin.launch.log import ServerLog
from moulin.launch.ports import claim_ports, reachable
from moulin.launch.server_options import ServerOptions
from moulin.launch.shared_memory import RegionOwner, region_bytes, sweep_orphans
from moulin.launch.stubs import has_ended, how_it_ended, running_stubs
from moulin.launch.tritonserver import TritonInstallation, find_tritonserver
from moulin.launch.vital_signs import family_activity, signs_of

_POLL_SEC = 0.1
_LOOK_SEC = 1.0
"""The pause between two looks at the processes while models load."""
_UNLOAD_SEC = 1.0
"""Time for models to be unloaded after the last request. Triton unloads one instance after the other, in a second each
and more with a GPU. What is left then is killed: no client waits for it, and it has nothing to save."""
_TRITONS_OWN_SEC = 20
"""Triton's own exit timeout is longer by that much: it counts the unloading too, and ends with an error."""
_LOST_SEC = 3.0
"""Time for Triton to say why a process that loads a model has ended."""
_IDLE_LOAD_SEC = 60.0
_KEEPALIVE = ("--grpc-keepalive-time=60000", "--grpc-keepalive-permit-without-calls=1")
"""Pings, in milliseconds: connections of clients that have vanished are closed within minutes, not after two hours."""
_PUMP_GRACE_SEC = 2.0
_METRICS_GRACE_SEC = 2.0
_CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
_HINTED = re.compile(r"^(?P<message>.*) \(hint: (?P<hint>.*)\)$")


class ServerFailed(LaunchError):
    """A server did not become ready; `failure` is the reason, and `crashed` whether a fault of its own has ended it."""

    def __init__(self, message: str, failure: Failure, *, hint: str | None = None, crashed: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.failure, self.crashed = failure, crashed


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
        self._liveness: dict[int, ProcessLiveness] = {}
        self._probe: Probe | None = None
        self._stopping = False
        self._out_of_time = False
        self._cut_short = False
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

    def wait_ready(self, timeout_sec: float | None = 120.0) -> None:
        """Wait until the server answers and all models are loaded.

        With `timeout_sec` None as long as the processes do something; a minute of nothing is a failure.

        Raises:
            ServerFailed: the process ended, with the reason from its log; it or that of a model ended, is stopped or
                does nothing; or it was not ready in time.
        """
        deadline = time.monotonic() + timeout_sec if timeout_sec is not None else None
        loading = _Loading(_IDLE_LOAD_SEC if timeout_sec is None else None)
        while not self.is_ready():
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                hint = "a large model takes longer the first time; allow more time"
                raise self._not_ready(f"to be ready within {timeout_sec:g} s, got models still loading", hint)
            self._look_at_loading(loading, now)
            if self._exited.wait(min(_POLL_SEC, deadline - now) if deadline is not None else _POLL_SEC):
                raise self._early_exit()
        # Triton opens gRPC, then HTTP, then metrics, and exits when the last one fails. An extra argument may switch
        # metrics off, so this wait ends without an error.
        deadline = time.monotonic() + _METRICS_GRACE_SEC
        while not self._metrics_answer() and time.monotonic() < deadline:
            if self._exited.wait(_POLL_SEC):
                raise self._early_exit()
        assert self._process is not None
        self._stubs = running_stubs(self._process.pid)
        self._probe = Probe(self.http_url, "/v2/health/live")

    def is_ready(self) -> bool:
        """Whether the process is alive and reports that it and all its models are ready."""
        return self._process is not None and not self._exited.is_set() and answers(self.http_url, "/v2/health/ready")

    def poll(self) -> int | None:
        """The exit code (negative: the signal), or None while it runs or has not been started.

        1 for a server that `stop` had to end, because requests were still in flight: Triton's own code for that. 0 for
        one whose unloading it cut short.
        """
        if self._process is None or not self._exited.is_set():
            return None
        if self._out_of_time:
            return 1
        return 0 if self._cut_short else self._process.returncode

    def wait(self, timeout_sec: float | None = None) -> int | None:
        """Wait until the process has ended and is cleaned up; None when it still runs or was never started."""
        if self._process is None:
            return None
        self._exited.wait(timeout_sec)
        return self.poll()

    def lost_instances(self) -> dict[str, str | None]:
        """Instances of models whose process has died since `wait_ready`, with its signal or exit code where that is
        known; Triton still reports them as ready."""
        ended = sorted((instance, pid) for pid, instance in self._stubs.items() if has_ended(pid))
        return {instance: how_it_ended(pid) for instance, pid in ended}

    def failure(self) -> Failure | None:
        """What has ended, is stopped or hangs since `wait_ready`; to be called about once a second.

        None once `stop` has been called.
        """
        if self._stopping:
            return None
        if (code := self.poll()) is not None:
            return Failure(
                "ended", f"tritonserver {_end_text(code)} unexpectedly: {self._log.last_words or 'it printed nothing'}"
            )
        if lost := self.lost_instances():
            died = ", ".join(f"{instance} ({how})" if how else instance for instance, how in lost.items())
            return Failure("instance_ended", f"The process of {died} has died")
        if self._process is None or self._probe is None:
            return None
        answering = self._probe.answers()
        return self._failure_of(self._process.pid, "tritonserver", answering) or next(
            filter(None, (self._failure_of(pid, _stub_text(instance)) for pid, instance in self._stubs.items())), None
        )

    def kill(self) -> None:
        """End the server and its stubs at once, without waiting for requests in flight."""
        self._signal(signal.SIGKILL)
        self.wait()

    def stop(self, grace_sec: float | None = None) -> None:
        """Stop the server and its stubs; requests in flight get `grace_sec`, else the exit timeout. Idempotent.

        Streams that are open count as requests in flight, and no new ones are taken. Then the models get a second to be
        unloaded.
        """
        if self._process is None:
            return
        if not self._exited.is_set():
            self._stopping = True
            if self._probe is not None:
                self._probe.close()  # Triton waits for its HTTP connections
            if self._regions is not None:
                self._regions.note_draining()
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + (self.options.exit_timeout_sec if grace_sec is None else grace_sec)
            while not self._log.unloading and time.monotonic() < deadline and not self._exited.wait(_POLL_SEC):
                pass
            if not self._exited.wait(_UNLOAD_SEC if self._log.unloading else 0):
                self._cut_short = self._log.unloading
                self._out_of_time = not self._cut_short
                self._signal(signal.SIGKILL)
        self._exited.wait()

    def command(self, installation: TritonInstallation) -> list[str]:
        """tritonserver's argument list."""
        options = self.options
        command = [str(installation.binary), f"--model-repository={self._repository}"]
        if installation.backends is not None:
            command.append(f"--backend-directory={installation.backends}")
        if self._regions is not None:
            sizes = {flag: region_bytes() for flag in ("shm-default-byte-size", "shm-growth-byte-size")}
            shared = {"shm-region-prefix-name": self._regions.prefix, **sizes}
            command += [f"--backend-config=python,{key}={value}" for key, value in shared.items()]
        command += [f"{flag}={port}" for flag, port in self._ports.items()]
        command += [f"--{service}-address={options.host}" for service in ("http", "grpc", "metrics")]
        command.append(f"--exit-timeout-secs={math.ceil(options.exit_timeout_sec) + _TRITONS_OWN_SEC}")
        command += [*_KEEPALIVE, *closed_protocols(options.host)]
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
        if self._probe is not None:
            self._probe.close()
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

    def _failure_of(self, pid: int, what: str, answers: bool | None = None) -> Failure | None:
        signs = signs_of(pid)
        if signs is None:  # noticed by `poll` and `lost_instances`
            return None
        liveness = self._liveness.setdefault(pid, ProcessLiveness(what))
        return liveness.observe(signs, time.monotonic(), answers=answers)

    def _look_at_loading(self, loading: _Loading, now: float) -> None:
        """Raises ServerFailed where nothing good can come any more."""
        if self._process is None or now < loading.next_look:
            return
        loading.next_look = now + _LOOK_SEC
        pid = self._process.pid
        stubs = running_stubs(pid)
        for process, what in {pid: "tritonserver", **{stub: _stub_text(name) for stub, name in stubs.items()}}.items():
            if failure := self._failure_of(process, what):
                raise ServerFailed(f"Expected tritonserver to become ready, got: {failure.reason}", failure)
        # With Triton's auto-completion of configurations each stub runs twice.
        if not self.options.auto_complete_config and (lost := loading.lost(stubs, now)):
            why = f": {self._log.reason}" if self._log.reason else ""
            reason = f"The process of {lost} has died while it loaded{why}"
            raise ServerFailed(
                f"Expected tritonserver to become ready, got: {reason}", Failure("instance_ended", reason)
            )
        if loading.is_idle(*family_activity(pid), now):
            what = f"to load its models, got {_IDLE_LOAD_SEC:g} s in which it did nothing for"
            hint = "start it again; --verbose shows Triton's log, /proc/pressure/cpu whether others have the cores"
            raise self._not_ready(what, hint)

    def _not_ready(self, what: str, hint: str) -> ServerFailed:
        waiting_for = ", ".join(self._log.loading) or "none that its log names"
        message = f"Expected tritonserver {what}: {waiting_for}"
        return ServerFailed(message, Failure("not_ready", message), hint=hint)

    def _early_exit(self) -> ServerFailed:
        code = self.poll() or 0
        reason = self._log.reason or self._log.last_words or "no output"
        hinted = _HINTED.match(reason)
        message, hint = (hinted["message"], hinted["hint"]) if hinted else (reason, None)
        message = f"Expected tritonserver to become ready, got: {_end_text(code)}: {message}"
        return ServerFailed(message, Failure("not_ready", message), hint=hint, crashed=-code in _CRASHES)


class _Loading:
    """What has been seen of one load."""

    def __init__(self, idle_sec: float | None) -> None:
        """`idle_sec` None does not judge idleness."""
        self.next_look = 0.0
        self._liveness = LoadLiveness(idle_sec) if idle_sec is not None else None
        self._seen: dict[int, str] = {}
        self._lost_at: dict[int, float] = {}

    def lost(self, stubs: Mapping[int, str], now: float) -> str | None:
        """The instance whose process has ended, some seconds ago."""
        self._seen.update(stubs)
        for pid in self._seen.keys() - stubs.keys() | set(filter(has_ended, stubs)):
            if now - self._lost_at.setdefault(pid, now) > _LOST_SEC:
                return self._seen[pid]
        return None

    def is_idle(self, cpu_sec: float, busy: bool, now: float) -> bool:
        return self._liveness is not None and self._liveness.observe(cpu_sec, busy, now)


def _end_text(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _stub_text(instance: str) -> str:
    return f"The process of {instance}"
