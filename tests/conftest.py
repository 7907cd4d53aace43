"""Versions in the report's header, the markers `gpu` and `needs`, and one tritonserver for all tests that need one."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.live_transcript import LiveTranscript
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.transcript import Transcript
from moulin.triton_repo.contract import STREAMING_MODEL_NAME
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES

# PyTorch's threads wait for each other by spinning. With tiny models on a shared machine that costs more than it gains:
# a small LSTM takes six times the CPU time in two threads, and our engine asks for as many as there are CPUs.
# Read when PyTorch is first imported, here and in what the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Kernels run in Triton's interpreter where there is no GPU. Read when one is first imported, by whatever test.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

# In a shell's background SIGINT is ignored, and under nohup SIGHUP: so they would be in what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The second model of the server: random weights in fp32, small enough to answer hundreds of requests in seconds.
TINY_MODEL = "tiny-conformer"
MAX_BATCH = 16

# The fourth: few streams, and those that nobody uses are soon closed.
TINY_STREAMING_MODEL = "tiny-lstm"
MAX_STREAMS = 8
IDLE_TIMEOUT_SEC = 4.0

_MAY_BE_ABSENT = ("torch", "lhotse", "playwright")
"""Packages that `make test` installs, and that a run by hand on another Python may lack: PyTorch is large."""


# A folder whose conftest.py needs such a package cannot be skipped: its conftest.py is imported before any hook.
_FOLDERS = {"encoders": "torch", "export": "torch", "gpu": "torch", "gateway/page": "playwright"}
collect_ignore = ["wheel"]  # of the installed package: scripts/test-wheel.sh
collect_ignore += [folder for folder, package in _FOLDERS.items() if importlib.util.find_spec(package) is None]


def pytest_report_header() -> list[str]:
    packages = ("onnxruntime", "numpy", "tritonclient", "sherpa-onnx", "nvidia-pytriton")
    absent = [
        f"not run: tests/{folder}, which needs {_FOLDERS[folder]}" for folder in collect_ignore if folder in _FOLDERS
    ]
    return [", ".join(f"{package} {_version(package)}" for package in packages), *absent]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("needs"):
            if importlib.util.find_spec(package := marker.args[0]) is None:
                item.add_marker(pytest.mark.skip(reason=f"needs {package}, which is not installed"))
    reason = _why_no_gpu()
    if reason is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))
    _long_files_first(items)


def _long_files_first(items: list[pytest.Item]) -> None:
    """Files that take long first, so that several processes end at about the same time.

    Tests that start a server come first, then interpreted kernels, then files with many tests.
    """
    starting = {item.path for item in items if item.get_closest_marker("triton")}
    count = Counter(item.path for item in items)
    interpreted = Path(__file__).parent / "gpu"
    items.sort(
        key=lambda item: (
            item.path not in starting,
            not item.path.is_relative_to(interpreted),
            -count[item.path],
            item.path,
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Skip, with the reason, files that import a package which not every supported Python can have here."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    if report.failed:
        for package in _MAY_BE_ABSENT:
            if importlib.util.find_spec(package) is None and f"No module named '{package}" in str(report.longrepr):
                report.outcome = "skipped"
                report.longrepr = (str(collector.path), 1, f"Skipped: needs {package}, which is not installed")
                break
    return report  # type: ignore[return-value]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _why_no_gpu() -> str | None:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "no NVIDIA GPU: nvidia-smi does not run"
    if "GPU 0" not in listed.stdout:
        return "no NVIDIA GPU: nvidia-smi lists none"
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "ONNX Runtime has no CUDA provider"
    return None


@dataclass(frozen=True)
class Recording:
    """A demo recording and its transcript by the engine, in this process and by itself."""

    file: Path
    said: str
    waveform: Floats
    heard: Transcript

    @property
    def text(self) -> str:
        return self.heard.text


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    """The 14 demo recordings."""
    with open_recognizer(DEMO_MODEL) as recognizer:
        return [
            Recording(clip.audio, clip.text, waveform := read_audio(clip.audio), recognizer.transcribe([waveform])[0])
            for clip in demo_clips()
        ]


@pytest.fixture(scope="session")
def heard_live(recordings: list[Recording]) -> list[Transcript]:
    """The transcript of each recording by itself, by the streaming engine in this process."""
    heard = []
    with open_stream_recognizer(DEMO_STREAMING_MODEL) as recognizer:
        for recording in recordings:
            stream = recognizer.open()
            recognizer.accept(stream, recording.waveform)
            recognizer.finish(stream)
            live = LiveTranscript()
            live.apply(recognizer.advance(stream))
            heard.append(live.transcript())
            recognizer.close(stream)
    return heard


@pytest.fixture(scope="session")
def snippets(recordings: list[Recording]) -> list[tuple[Floats, str]]:
    """Half seconds of speech, and the tiny model's text of each alone: all different."""
    with open_recognizer(BUNDLES / "conformer-offline") as recognizer:
        heard = {
            recognizer.transcribe([snippet])[0].text: snippet
            for snippet in (recording.waveform[8000:16000] for recording in recordings)
        }
    assert len(heard) >= 8
    return [(snippet, text) for text, snippet in heard.items()]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A running tritonserver: the demo models as `transducer` and `transducer_streaming`, a tiny one beside each."""
    repository = tmp_path_factory.mktemp("repository")
    demo = load_bundle(DEMO_MODEL, expect="offline")
    tiny = load_bundle(BUNDLES / "conformer-offline", expect="offline")
    build_offline_repository(demo, repository, OfflineOptions(max_batch=MAX_BATCH), link=True)
    build_offline_repository(tiny, repository, OfflineOptions(model_name=TINY_MODEL, max_batch=MAX_BATCH))
    live = load_bundle(DEMO_STREAMING_MODEL, expect="streaming")
    tiny_live = load_bundle(BUNDLES / "lstm-streaming", expect="streaming")
    build_streaming_repository(live, repository, StreamingOptions(model_name=STREAMING_MODEL_NAME), link=True)
    few = StreamingOptions(model_name=TINY_STREAMING_MODEL, max_streams=MAX_STREAMS, idle_timeout_sec=IDLE_TIMEOUT_SEC)
    build_streaming_repository(tiny_live, repository, few)
    # Triton waits that long for streams that some tests leave open.
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(repository, options) as running:
        running.wait_ready()
        yield running
        assert running.poll() is None, "tritonserver died during the tests"
