"""The executor of a cluster, on Ray Data.

    rows ─▶ tasks that decode ─▶ actors with the model ─▶ here: output
            Ray holds them back where more audio is ready than the actors take

Ray starts tasks and actors again without limit, and repeats what was lost with a node. What then comes twice is taken
once, and what did not come is done in another pass: the output has each recording once whatever Ray does.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bulk.executor import Output
from moulin.bulk.local.settings import DecodingSettings
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.ray.arriving import arriving
from moulin.bulk.ray.blocks import blocks, not_in
from moulin.bulk.ray.plan import Plan, RayChoice, planned_on_cpus, planned_on_gpus
from moulin.bulk.ray.ray_here import ray
from moulin.bulk.ray.stages import TranscribedBatch, check_usable, decoded_batch
from moulin.bulk.transcriber import Transcriber
from moulin.errors import EngineError, first_line

logger = logging.getLogger(__name__)

_BYTES_A_SEC = 2 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Of the executor."""

    transcriber: Transcriber
    """Of each actor. On a card its device is `cuda`: Ray shows an actor the card that it may use."""
    decoding: DecodingSettings
    choice: RayChoice
    decoders: int | None = None
    """Tasks that decode at once; by default as many as CPUs are free."""


class RayExecutor:
    """The `Executor` of a cluster of Ray's."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._stops = False
        self._is_connected = False
        self._folder: str | None = None
        """Logs and sockets of a cluster of our own."""

    def start(self) -> None:
        """Connect to the cluster, or start one. Raises EngineError where it cannot be reached or is too small."""
        address = self._settings.choice.address
        options: dict[str, Any] = {"address": address}
        os.environ["RAY_DATA_USAGE_DISABLED"] = "1"  # nothing that we start reports to anybody
        if address is None:
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            # Ray 2.60 listens on the machine's own address whatever it is told; the token keeps others out. Ray would
            # write one to home.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            self._folder = tempfile.mkdtemp(prefix="moulin-ray-")
            options = {
                "address": "local",
                "include_dashboard": False,
                "_temp_dir": self._folder,
            }
        try:
            with _sigterm_kept():
                ray.init(**options, logging_level="ERROR")
        except Exception as error:  # of several kinds, a bare one where starting takes more than half a minute
            logs, self._folder = self._folder, None  # kept: they say why, and Ray still writes there
            raise EngineError(
                f"Ray cannot be {'started' if logs else f'reached at {address}'}: {first_line(error)}",
                hint=f"the machine may be too busy or have too little memory; the logs are in {logs}"
                if logs
                else "`ray status` on a machine of the cluster says whether it runs",
            ) from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of every pass; failures are raised
        self._is_connected = True
        self._plan()  # refuses too small a cluster before the manifest is read

    def stop(self) -> None:
        """Take nothing more: `run` returns, and what is under way in the cluster is lost."""
        self._stops = True

    def run(self, pending: Any, output: Output, on_look: Callable[[], None] = lambda: None) -> bool:
        """Transcribe the rows of a table of the schema RECORDINGS; returns whether all are done."""
        missing, done = pending, set[str]()
        while missing.num_rows:
            ended: _PassEnded | None = None
            try:
                for transcribed in self._pass(missing):
                    if transcribed is not None:
                        check_usable(transcribed)
                        if (new := not_in(done, transcribed)).num_rows:
                            output.add(new)
                    output.write_if_old()
                    on_look()
                    if self._stops:
                        return bool(len(done) == pending.num_rows)
            except _PassEnded as error:
                ended = error
            is_done = pc.is_in(pending.column("id"), pa.array(list(done), pa.string()))
            left = pending.filter(pc.invert(is_done))
            if left.num_rows == missing.num_rows:
                raise ended or EngineError(f"Ray has transcribed none of {left.num_rows:,} recordings")
            if ended is not None:
                logger.warning("%s; another pass follows", ended.message)
            missing = left
        return True

    def close(self) -> None:
        """Leave the cluster, which ends what it does for us; end one of our own."""
        if self._is_connected:
            ray.shutdown()
            self._is_connected = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _plan(self) -> Plan:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        engine = self._settings.transcriber.engine
        if engine.gpu is None:
            return planned_on_cpus(nodes, engine.threads, self._settings.decoders)
        return planned_on_gpus(nodes, self._settings.choice, self._settings.decoders)

    def _pass(self, rows: Any) -> Iterator[Any]:
        """Tables of transcripts as they come, and None now and then. Raises _PassEnded where Ray fails."""
        plan = self._plan()
        dataset = _transcripts(blocks(rows, plan.decoders), self._settings, plan)
        try:
            yield from arriving(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        except Exception as error:  # of Ray's own, of which there are several kinds
            raise _PassEnded(
                f"Ray has ended the job: {first_line(error)}", hint="run the command again to go on where it stopped"
            ) from error


class _PassEnded(EngineError):
    """Ray has given up what it was doing."""


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray ends the process on SIGTERM, we write a part first: what was set before is so again behind the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _transcripts(tables: list[Any], settings: RaySettings, plan: Plan) -> Any:
    """The dataset of transcripts; nothing runs before somebody iterates over it.

    Ray Data starts tasks and actors again without limit by default. It would run both stages in one process where they
    ask for the same resources; only the first asks for memory.
    """
    block_bytes = int(settings.decoding.table_sec * _BYTES_A_SEC)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = block_bytes  # what an actor takes at once
    transcriber = settings.transcriber
    if transcriber.engine.gpu is None:
        transcriber = _with_threads(transcriber, plan.cpus_an_actor)
    audio = ray.data.from_arrow(tables).map_batches(
        decoded_batch,
        fn_kwargs={"settings": settings.decoding},
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.TaskPoolStrategy(size=plan.decoders),
        num_cpus=1,
        memory=block_bytes,
    )
    return audio.map_batches(
        TranscribedBatch,
        fn_constructor_args=(transcriber,),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=plan.actors),
        num_cpus=plan.cpus_an_actor,
        num_gpus=plan.gpus_an_actor or None,
    )


def _with_threads(transcriber: Transcriber, threads: int) -> Transcriber:
    """`transcriber` with as many threads as its actor has CPUs."""
    return Transcriber(
        transcriber.model,
        engine=replace(transcriber.engine, threads=threads),
        options=transcriber.options,
        batch_sec=transcriber.batch_sec,
    )
