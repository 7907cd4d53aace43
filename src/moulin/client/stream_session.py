"""The protocol of one stream without a connection: requests to Triton, and the meaning of its replies.

`LiveStream` and `AsyncLiveStream` add the call of `infer`.
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
"""Triton's ids have 64 bits, tritonclient's are signed."""

_FAREWELL_SEC = 5.0
"""Timeout for closing a stream. The reply is not needed: the server closes an idle stream by itself."""


class StreamSession:
    """Strictly alternating requests and replies:

        result = client.infer(model, **session.request(samples))
        update = session.update(result)

    Triton answers a sequence in order, so sending ahead gains nothing. After a failed request it is unknown whether the
    server processed it, so the stream cannot continue: the session, which still expects that reply, accepts no more
    requests. `farewell` then tells the server to free the stream's slot.
    """

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        sequence_id: int | None = None,
        *,
        int16: bool = False,
        numbered: bool = False,
    ) -> None:
        """`options` are those of `StreamOptions`: method, beam, endpoint, …; the server checks them.

        `int16` sends audio in 16 bits, half as many bytes, and `numbered` the number of each request (CHUNK_INDEX), by
        which the server notices one that is missing, repeated or out of order; the server must support them.

        The id is random by default, so that independent clients do not collide.

        Raises OptionsError for an id out of range.
        """
        if sequence_id is None:
            sequence_id = 1 + secrets.randbelow(MAX_SEQUENCE_ID)
        if not 1 <= sequence_id <= MAX_SEQUENCE_ID:
            raise OptionsError(f"Expected a sequence id of 1 to {MAX_SEQUENCE_ID}, got {sequence_id}")
        self.sequence_id = sequence_id
        self.live = LiveTranscript()
        """The transcript so far."""
        self._options, self._int16, self._numbered = options, int16, numbered
        self._requests = 0
        self._state: Literal["new", "open", "waiting", "ended"] = "new"
        self._ending = False

    def request(self, samples: ArrayLike = (), *, end: bool = False) -> dict[str, Any]:
        """The keyword arguments of tritonclient's `infer` that send the stream's next `samples` [N], 16 kHz mono.

        N may be 0. `end` marks the last samples.

        Raises AudioError for invalid samples (the stream may continue) and ClientError where the stream has ended.
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
        """The update in the `InferResult` of the last request, which is applied to `live`.

        Raises ClientError where the answering model is not a streaming model of moulin's.
        """
        update = protocol.stream_update(result)
        self.live.apply(update)
        self._state = "ended" if self._ending else "open"
        return update

    def farewell(self) -> dict[str, Any] | None:
        """The arguments of `infer` that end a stream early, or None where the server holds no slot for it.

        The session has ended then, whether or not that request succeeds.
        """
        if self._state in ("new", "ended"):
            return None
        self._state = "ended"
        return self._arguments(np.zeros(0, np.float32), start=False, end=True) | {"client_timeout": _FAREWELL_SEC}

    def _arguments(self, waveform: NDArray[np.float32], *, start: bool, end: bool) -> dict[str, Any]:
        number, self._requests = self._requests, self._requests + 1
        return {
            "inputs": protocol.request_tensors(
                [waveform],
                self._options if start else None,
                int16=self._int16,
                chunk_index=number if self._numbered else None,
            ),
            "outputs": protocol.requested_outputs(),
            "sequence_id": self.sequence_id,
            "sequence_start": start,
            "sequence_end": end,
        }
