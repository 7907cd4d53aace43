"""Streams that share few requests to a Triton server: lanes, by the client's own `AsyncStreamBundle`.

A chunk is answered when the samples decoded as far as they go reach its end.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import in_16_bits
from moulin.client import AsyncBundledStream, AsyncClient, AsyncStreamBundle
from moulin.errors import ClientError
from moulin.evaluate.connection import Record
from moulin.evaluate.streaming_clips import Clip

_Chunks = Sequence[NDArray[np.int16]]


class BundleConnection:
    """A `Connection`: the streams of one load generator on a lane to each instance of the model."""

    def __init__(self, url: str, model: str, options: str, clips: Sequence[Clip]) -> None:
        self._client, self._model = AsyncClient(url), model
        self._options = json.loads(options) if options else {}
        self._chunks: dict[int, _Chunks] = {id(clip): [in_16_bits(chunk) for chunk in clip.chunks] for clip in clips}
        self._bundle: AsyncStreamBundle | None = None
        self._connecting = asyncio.Lock()
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def num_requests(self) -> int:
        return self._bundle.num_requests if self._bundle else 0

    def open(self, record: Record) -> BundledRecord:
        opened = BundledRecord(record, self._chunks[id(record.clip)])
        task = asyncio.get_running_loop().create_task(self._open(opened))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return opened

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        if self._bundle:
            await self._bundle.close()
        await self._client.close()

    async def _open(self, opened: BundledRecord) -> None:
        try:
            async with self._connecting:
                if self._bundle is None:
                    self._bundle = await self._client.open_bundle(self._model)
            opened.begin(await self._bundle.open(**self._options))
        except ClientError as error:
            opened.record.fail(str(error))


class BundledRecord:
    """One stream. Chunks sent before it is open wait."""

    def __init__(self, record: Record, chunks: _Chunks) -> None:
        self.record, self._chunks = record, chunks
        self._ends = np.cumsum([len(chunk) for chunk in chunks]).tolist()
        self._loop = asyncio.get_running_loop()
        self._stream: AsyncBundledStream | None = None
        self._unsent: deque[int] = deque()
        self._answered = 0
        self._abandoned = False

    def begin(self, stream: AsyncBundledStream) -> None:
        self._stream = stream
        stream.on_news = self._on_news
        while self._unsent:
            self.send(self._unsent.popleft())

    def send(self, index: int) -> None:
        if self._stream is None:
            self._unsent.append(index)
            return
        self.record.sent[index] = self._loop.time()
        try:
            self._stream.push(self._chunks[index], end=index == len(self._chunks) - 1)
        except ClientError as error:
            self.record.fail(str(error))

    def abandon(self) -> None:
        """Nothing more is to be said of the stream; the connection drops it when it is closed."""
        self._abandoned = True

    def _on_news(self) -> None:
        stream, record, now = self._stream, self.record, self._loop.time()
        if stream is None or self._abandoned:
            return
        if stream.error is not None:
            record.fail(str(stream.error))
            return
        last = len(self._ends) - 1
        while self._answered < last and self._ends[self._answered] <= stream.decoded_samples:
            record.replied[self._answered] = now
            self._answered += 1
        text = stream.live.text
        record.heard(text, now)
        if stream.ended:
            record.replied[last] = now
            record.finish(text)
