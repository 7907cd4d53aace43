"""A stream of speech over a blocking connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numpy.typing import ArrayLike

from moulin.client.stream_session import StreamSession
from moulin.errors import ClientError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.transcript import Transcript


class LiveStream:
    """A stream created by `Client.stream`, for one thread. After an error it accepts no more audio.

    Raises what `Client` does, and AudioError for invalid samples, which are not sent and do not end the stream.
    """

    def __init__(self, infer: Callable[..., Any], session: StreamSession) -> None:
        """`infer` is tritonclient's with the model given, and raises ClientError."""
        self._infer, self._session = infer, session

    @property
    def live(self) -> LiveTranscript:
        """The transcript so far."""
        return self._session.live

    def send(self, samples: ArrayLike, *, end: bool = False) -> StreamUpdate:
        """Send the next samples: float or int16 [N], 16 kHz mono, any N. `end` marks the last ones."""
        return self._session.update(self._infer(**self._session.request(samples, end=end)))

    def finish(self, samples: ArrayLike = ()) -> Transcript:
        """Send the last samples, if any, and return the whole transcript."""
        self.send(samples, end=True)
        return self.live.transcript()

    def close(self) -> None:
        """End the stream on the server if `finish` was not called; failures are ignored."""
        farewell = self._session.farewell()
        if farewell is not None:
            with suppress(ClientError):
                self._infer(**farewell)
