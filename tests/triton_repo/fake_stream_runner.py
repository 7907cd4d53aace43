"""A `StreamRunner` without a model, that waits and fails when told to, and who asks a service without Triton."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.bundle.load import load_bundle
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import MoulinError
from moulin.triton_repo.streaming_service import StreamId, StreamingService, StreamReply, StreamRequest
from tests.bundles import BUNDLES

_LSTM = load_bundle(BUNDLES / "lstm-streaming")
SPEC = replace(_LSTM, joiner_dim=_LSTM.vocab_size)
"""Its windows (9 frames, a new one every 4) and its tokens are used, its networks are not."""

WINDOW_SAMPLES = 8 * 160 + 280
"""Audio for the first chunk: nine frames, of which the last overhangs its centre by 280 samples."""
CHUNK_SAMPLES = 4 * 160
"""Audio for each chunk after it."""

_TOKENS = [token for token in range(1, SPEC.vocab_size) if token != SPEC.tokens.unk_id]
_PATIENCE_SEC = 300.0


class FakeStreamRunner:
    """Every chunk emits one token, made from all the audio that its slot has had since it was reset.

    So audio that went to another stream, came twice or was lost shows in the text.
    """

    context_size = 2
    skipped_ids = (0,)

    def __init__(self, capacity: int = 64, *, max_batch: int = 4, num_workers: int = 2) -> None:
        self.limits = StepLimits(capacity, max_batch, num_workers)
        self.failure: str | None = None
        """What every encoder call raises from now on."""
        self.decoder_failure: str | None = None
        self.num_chunks = 0
        self.batch_sizes: set[int] = set()
        self.entered = threading.Semaphore(0)
        """Released by every encoder call when it begins."""
        self._heard = np.zeros(capacity, dtype=np.int64)
        self._running = threading.Event()
        self._running.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Encoder calls do not return before the end of the block."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def hold(self) -> None:
        self._running.clear()

    def release(self) -> None:
        self._running.set()

    def fbank(self, frames: Floats) -> Floats:
        """The first samples of each frame, exactly: they tell audio apart as well as features would."""
        return frames[:, : SPEC.feature_dim]

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        self.entered.release()
        assert self._running.wait(_PATIENCE_SEC)
        assert len(set(slots.tolist())) == len(slots) <= self.limits.max_batch
        if self.failure is not None:
            raise RuntimeError(self.failure)
        logits = np.zeros((len(slots), 1, SPEC.vocab_size), dtype=np.float32)
        for row, slot in enumerate(slots.tolist()):
            self._heard[slot] = zlib.crc32(x[row].tobytes(), int(self._heard[slot]))
            logits[row, 0, _TOKENS[int(self._heard[slot]) % len(_TOKENS)]] = 20.0
        self.num_chunks += len(slots)
        self.batch_sizes.add(len(slots))
        return logits

    def decoder(self, y: Ints) -> Floats:
        if self.decoder_failure is not None:
            raise RuntimeError(self.decoder_failure)
        return np.zeros((len(y), SPEC.vocab_size), dtype=np.float32)

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        return encoder_out + decoder_out

    def reset(self, slots: Ints) -> None:
        self._heard[slots] = 0


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answer:
    """The reply to one request, which may still have to come."""

    def __init__(self) -> None:
        self.replies: list[StreamReply | MoulinError] = []
        self._came = threading.Event()

    def respond(self, reply: StreamReply | MoulinError) -> None:
        self.replies.append(reply)
        self._came.set()

    @property
    def came(self) -> bool:
        return self._came.is_set()

    def wait(self) -> StreamReply | MoulinError:
        assert self._came.wait(_PATIENCE_SEC), "no reply"
        assert len(self.replies) == 1, f"{len(self.replies)} replies to one request: {self.replies}"
        return self.replies[0]

    @property
    def reply(self) -> StreamReply:
        reply = self.wait()
        assert isinstance(reply, StreamReply), reply
        return reply

    @property
    def text(self) -> str:
        return self.reply.text

    @property
    def error(self) -> MoulinError:
        reply = self.wait()
        assert isinstance(reply, MoulinError), reply
        return reply


def stream_request(stream_id: StreamId, samples: Floats, **fields: Any) -> StreamRequest:
    """A request as Triton would hand it over: [1, N] and [1, 1]."""
    fields = {"start": False, "end": False, "wav": samples[None], "wav_lens": [[len(samples)]], **fields}
    fields["wav_lens"] = np.array(fields["wav_lens"], dtype=np.int32)
    return StreamRequest(stream_id, **fields)


def send(service: StreamingService, stream_id: StreamId, samples: Floats, **fields: Any) -> Answer:
    """Submit a request without waiting for its answer."""
    answer = Answer()
    service.submit(stream_request(stream_id, samples, **fields), answer.respond)
    return answer


def heard_alone(recognizer: StreamRecognizer, samples: Floats, *, finish: bool = True) -> str:
    """What the recognizer makes of `samples` when nobody else is there."""
    stream = recognizer.open()
    recognizer.accept(stream, samples)
    if finish:
        recognizer.finish(stream)
    while recognizer.is_ready(stream):
        recognizer.step([stream])
    recognizer.close(stream)
    return recognizer.text(stream)
