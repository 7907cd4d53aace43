"""Many recordings through a server or through a model in this process; what is wrong with one stops no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.source import AudioSource
from moulin.errors import AudioError, ClientError, MoulinError, ServerUnavailable
from moulin.transcript import Transcript

if TYPE_CHECKING:
    from moulin.bundle.files import Precision
    from moulin.engine.engines import Engine

_FILES_AT_ONCE = 64
"""With a model in this process: enough to sort by length and keep all threads busy, few enough to hold in memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A recording and its transcript, or why there is none."""

    source: AudioSource
    result: Transcript | MoulinError


def transcribe_on_server(
    sources: Sequence[AudioSource], url: str, *, model: str, changes: Mapping[str, Any], jobs: int
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`, with at most `jobs` requests under way.

    Raises ServerUnavailable when nobody answers: the next recording would fare no better.
    """
    from moulin.client.sync_client import Client

    with Client(url, model=model) as client:

        def one(source: AudioSource) -> Outcome:
            try:
                return Outcome(source, client.transcribe(source.read(), **changes))
            except ServerUnavailable:
                raise
            except (AudioError, ClientError) as error:
                return Outcome(source, error)

        with ThreadPoolExecutor(jobs) as pool:
            # Only so many recordings are read ahead as there are jobs for.
            waiting = iter(sources)
            running: deque[Future[Outcome]] = deque(pool.submit(one, source) for source in islice(waiting, 2 * jobs))
            try:
                while running:
                    yield running.popleft().result()
                    running.extend(pool.submit(one, source) for source in islice(waiting, 1))
            finally:
                pool.shutdown(cancel_futures=True)


def transcribe_in_process(
    sources: Sequence[AudioSource],
    model: Path,
    *,
    changes: Mapping[str, Any],
    precision: Precision | None = None,
    engine: Engine | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Iterator[Outcome]:
    """Outcomes in the order of `sources`. Raises BundleError or EngineError where the model cannot be used."""
    from moulin.decoding.options import DecodingOptions
    from moulin.engine.open_recognizer import open_recognizer
    from moulin.engine.together import answer_together

    options = DecodingOptions().updated(changes)
    with (
        open_recognizer(
            model, precision=precision, engine=engine, device=device, threads=threads, options=options
        ) as recognizer,
        ThreadPoolExecutor(threads) as pool,
    ):

        def read(source: AudioSource) -> NDArray[np.float32] | AudioError:
            try:
                return recognizer.check(source.read())
            except AudioError as error:
                return error

        waiting = iter(sources)
        while group := list(islice(waiting, _FILES_AT_ONCE)):
            waveforms = list(pool.map(read, group))
            good = [waveform for waveform in waveforms if not isinstance(waveform, AudioError)]
            results = iter(answer_together(good, recognizer.transcribe))
            for source, waveform in zip(group, waveforms, strict=True):
                yield Outcome(source, waveform if isinstance(waveform, AudioError) else next(results))
