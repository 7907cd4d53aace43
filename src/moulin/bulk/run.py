"""One run of a job: from a manifest and a model to parts in a folder."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from moulin.audio.selection import MIX, Selection
from moulin.bulk.executor import Executor
from moulin.bulk.full_disk import full_disk_named
from moulin.bulk.local.settings import CutPlace, DecodingSettings, ExecutorSettings
from moulin.bulk.manifests.manifest import read_recordings
from moulin.bulk.output.formats import FormatName
from moulin.bulk.output.job import Job, begin, check, digest_of
from moulin.bulk.output.manifest_ids import note_ids
from moulin.bulk.output.open_part import ChangedParts, OpenPart
from moulin.bulk.output.parts import WHOLE, PartFolder, Shard
from moulin.bulk.pending import Pending, pending_rows, recordings_by_id
from moulin.bulk.progress import Counted, State
from moulin.bulk.ray.plan import RayChoice
from moulin.bulk.transcriber import GPU_BATCH_SEC, Transcriber
from moulin.decoding.options import DecodingOptions
from moulin.engine.device import gpu_index
from moulin.engine.features import model_max_sec
from moulin.errors import EngineError
from moulin.long_audio.pieces import MAX_PIECE_SEC
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec

PART_HOURS = 20.0
CORE_SEC = 60.0
"""Seconds of audio for each core in a table: a second of work of a small model, ten of a large one, for which SIGTERM
waits."""

ENGINES_PER_GPU = 2
"""A card waits for the one core of Python that prepares its batches and spells their tokens."""

_CORES_FOR_SEVERAL = 8

_RAY_CORES = 4
"""Cores of an actor of Ray's on the CPU, for the length of tables."""

_SHOWN_EVERY_SEC = 0.5
_USUAL_DECODING = DecodingOptions()


@dataclass(frozen=True, slots=True)
class BulkRun:
    """What a run is to do."""

    source: Path
    """A manifest or a folder."""
    to: Path
    model: Path
    """The files of an offline model."""
    devices: tuple[str, ...] = ("cpu",)
    engine: EngineChoice = USUAL_ENGINE
    """On each of `devices`."""
    decoding: DecodingOptions = _USUAL_DECODING
    selection: Selection = MIX
    format: FormatName = "parquet"
    decoders: int | None = None
    part_hours: float = PART_HOURS
    shard: Shard = WHOLE
    retries: bool = False
    """Whether the recordings with errors are tried again, instead of those that were never tried."""
    ray: RayChoice | None = None
    """The cluster that does the work; None is this machine."""
    cut: CutPlace = "decoders"
    engines_per_gpu: int | None = None
    """Processes with the model on each card of this machine; by default ENGINES_PER_GPU where there are the cores."""

    @property
    def is_on_gpu(self) -> bool:
        return any(gpu_index(device) is not None for device in self.devices)

    def spec(self) -> ModelSpec:
        """The model's facts. Raises BundleError, EngineError or OptionsError."""
        from moulin.models.load_for_engine import load_for_engine

        return load_for_engine(self.model, self.engine, "offline")[0]

    def job(self, spec: ModelSpec) -> Job:
        """The description of the job."""
        chosen = {"kind": self.engine.kind, "precision": self.engine.precision, "head": self.engine.head}
        return Job(
            self.format, spec.name, digest_of(spec.all_files), chosen, self.decoding.to_dict(), asdict(self.selection)
        )

    def executor(self, spec: ModelSpec) -> Executor:
        """What does the work. Raises EngineError where Ray is needed and missing."""
        if self.ray is None:
            from moulin.bulk.local.executor import LocalExecutor

            return LocalExecutor(self._local_settings(spec))
        from moulin.bulk.ray.executor import RayExecutor, RaySettings

        table_sec = self._table_sec(self.engine.threads or _RAY_CORES)
        settings = RaySettings(
            self._transcriber(self.devices[0], table_sec),
            self._decoding_settings(spec, table_sec),
            self.ray,
            self.decoders,
        )
        return RayExecutor(settings)

    def _local_settings(self, spec: ModelSpec) -> ExecutorSettings:
        """Processes with the model for each device, and the other cores for decoding."""
        cores = len(os.sched_getaffinity(0))
        table_sec = self._table_sec(self.engine.threads or cores)
        has_many = cores >= _CORES_FOR_SEVERAL * len(self.devices)
        each = self.engines_per_gpu or (ENGINES_PER_GPU if has_many else 1) if self.is_on_gpu else 1
        transcribers = tuple(self._transcriber(device, table_sec) for device in self.devices for _ in range(each))
        free = cores - len(transcribers) if self.is_on_gpu else cores // 2
        return ExecutorSettings(transcribers, self.decoders or max(1, free), self._decoding_settings(spec, table_sec))

    def _decoding_settings(self, spec: ModelSpec, table_sec: float) -> DecodingSettings:
        return DecodingSettings(min(MAX_PIECE_SEC, model_max_sec(spec)), table_sec, self.cut)

    def _table_sec(self, cores: int) -> float:
        return GPU_BATCH_SEC if self.is_on_gpu else CORE_SEC * cores

    def _transcriber(self, device: str, table_sec: float) -> Transcriber:
        return Transcriber(self.model, device, engine=self.engine, options=self.decoding, batch_sec=table_sec)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    state: State
    is_complete: bool
    """Whether all recordings of the shard are in parts; else it was told to stop."""


class Listener(Protocol):
    """Who is told how far a run is."""

    def step(self, text: str, /) -> None:
        """What is done now, before the first recording: one of a few steps that may take long."""

    def state(self, state: State, /) -> None:
        """The state, now and then."""

    def skipped(self, text: str, /) -> None:
        """A sentence about files that are not taken."""


def run_bulk(run: BulkRun, listener: Listener) -> Ended:
    """Transcribe what is not transcribed yet.

    SIGTERM ends it with what the engines have in a part; so does KeyboardInterrupt, which is raised on. Raises
    BundleError, EngineError and OptionsError, also where the disk is full: parts that are there are complete.
    """
    if not run.source.exists():
        read_recordings(run.source)  # raises, before anything is started
    listener.step(f"Reading {run.model}")
    spec = run.spec()
    job = run.job(spec)
    check(run.to, job)
    with _stopped_by_sigterm() as stopped, closing(run.executor(spec)) as executor:
        if run.ray is not None:
            listener.step("Starting Ray" if run.ray.address is None else f"Connecting to Ray at {run.ray.address}")
        executor.start()  # models load while the manifest is read
        listener.step(f"Reading {run.source}")
        recordings = read_recordings(run.source, listener.skipped)
        with full_disk_named(run.to):
            begin(run.to, job)  # not before: a manifest that is refused leaves nothing
            parts = PartFolder(run.to, job, run.shard)
            with parts.owned():
                return _into(parts, run, recordings, executor, stopped, listener)


def _into(
    parts: PartFolder,
    run: BulkRun,
    recordings: Any,
    executor: Executor,
    stopped: threading.Event,
    listener: Listener,
) -> Ended:
    """Transcribe into `parts`, which are owned, until all is done or `stopped`."""
    listener.step(f"Looking which of {recordings.num_rows:,} recordings are done")
    note_ids(run.to, recordings.column("id"), run.shard)
    pending = pending_rows(recordings, parts, run.selection, retries=run.retries)
    output = _output(run, parts, recordings, pending)
    shown = _Shown(output, listener)

    def look() -> None:
        shown()
        if stopped.is_set():
            executor.stop()

    try:
        is_complete = executor.run(pending.rows, output, look)
    except (KeyboardInterrupt, EngineError):  # what has come is done, whatever became of the rest
        output.write()
        raise
    output.write()
    return Ended(output.state(), is_complete)


def _output(run: BulkRun, parts: PartFolder, recordings: Any, pending: Pending) -> Counted:
    by_id = recordings_by_id(recordings)
    written = (
        ChangedParts(parts, by_id, pending.failed_in)
        if run.retries
        else OpenPart(parts, by_id, part_sec=run.part_hours * 3600)
    )
    return Counted(written, total=pending.total, done=pending.done, failed=pending.failed)


class _Shown:
    """Tells the state, not too often."""

    def __init__(self, output: Counted, listener: Listener) -> None:
        self._output, self._listener, self._last = output, listener, 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last >= _SHOWN_EVERY_SEC:
            self._last = now
            self._listener.state(self._output.state())


@contextmanager
def _stopped_by_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets within the block, where this is the main thread."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
