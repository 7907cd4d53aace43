"""One stream of speech without a connection: what to ask of Triton, and what its replies mean.

`LiveStream` and `AsyncLiveStream` are this and a call of `infer`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moulin.audio.waveform import check_waveform
from moulin.client import protocol
from moulin.errors import ClientError, OptionsError
from moulin.live_transcript import LiveTranscript, StreamUpdate

MAX_SEQUENCE_ID = 2**63 - 1
"""Triton takes 64 bits, tritonclient a signed integer."""

_FAREWELL_SEC = 5.0
"""Nobody needs the reply to a farewell; the server would also notice by itself that nothing comes any more."""


class StreamSession:
    """Requests and replies strictly by turns: a request, its reply, the next request.

        result = client.infer(model, **session.request(samples))
        update = session.update(result)

    Triton answers a sequence in order, so there is nothing to win by sending ahead. And a request that failed may or
    may not have been heard, so the stream cannot go on after it: the session, which still waits for that reply, takes
    no more. `farewell` then tells the server that it may free the stream's slot.
    """

    def __init__(
        self, options: Mapping[str, Any] | None = None, sequence_id: int | None = None, *, int16: bool = False
    ) -> None:
        """`options` are those of `StreamOptions`: method, beam, endpoint, …; the server checks them.

        `int16` sends audio in 16 bits, half as many bytes, which the server must offer.

        The id is random by default, so that clients that know nothing of each other do not collide.

        Raises OptionsError for an id that cannot be one.
        """
        if sequence_id is None:
            sequence_id = 1 + secrets.randbelow(MAX_SEQUENCE_ID)
        if not 1 <= sequence_id <= MAX_SEQUENCE_ID:
            raise OptionsError(f"Expected a sequence id of 1 to {MAX_SEQUENCE_ID}, got {sequence_id}")
        self.sequence_id = sequence_id
        self.live = LiveTranscript()
        """What was said so far."""
        self._options, self._int16 = options, int16
        self._state: Literal["new", "open", "waiting", "ended"] = "new"
        self._ending = False

    def request(self, samples: ArrayLike = (), *, end: bool = False) -> dict[str, Any]:
        """The keyword arguments of tritonclient's `infer` that send `samples` [N], 16 kHz mono, as the stream's next.

        N may be 0. `end` says that these are the last.

        Raises AudioError for samples that are no waveform (the stream is as it was) and ClientError where it is over.
        """
        if self._state == "ended":
            raise ClientError("The stream has ended", hint="open another one")
        if self._state == "waiting":
            raise ClientError(
                "The stream's last request was not answered",
                hint="send one piece at a time; open another after an error",
            )
        waveform = check_waveform(samples, what="samples")
        start = self._state == "new"
        self._state, self._ending = "waiting", end
        return self._arguments(waveform, start=start, end=end)

    def update(self, result: Any) -> StreamUpdate:
        """What the `InferResult` of the last request says, applied to `live`.

        Raises ClientError where a model answers that is not a streaming one of moulin's.
        """
        update = protocol.stream_update(result)
        self.live.apply(update)
        self._state = "ended" if self._ending else "open"
        return update

    def farewell(self) -> dict[str, Any] | None:
        """The arguments of `infer` that end a stream which stops early, or None where the server holds no slot for it.

        The stream is over then, whatever comes of it.
        """
        if self._state in ("new", "ended"):
            return None
        self._state = "ended"
        return self._arguments(np.zeros(0, np.float32), start=False, end=True) | {"client_timeout": _FAREWELL_SEC}

    def _arguments(self, waveform: NDArray[np.float32], *, start: bool, end: bool) -> dict[str, Any]:
        return {
            "inputs": protocol.request_tensors([waveform], self._options if start else None, int16=self._int16),
            "outputs": protocol.requested_outputs(),
            "sequence_id": self.sequence_id,
            "sequence_start": start,
            "sequence_end": end,
        }
