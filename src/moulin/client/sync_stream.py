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
    """Made by `Client.stream`, for one thread. After an error it takes no more.

    Raises what `Client` does, and AudioError for samples that are no waveform; those were not sent, and it goes on.
    """

    def __init__(self, infer: Callable[..., Any], session: StreamSession) -> None:
        """`infer` is tritonclient's, but for the model, and raises ClientError."""
        self._infer, self._session = infer, session

    @property
    def live(self) -> LiveTranscript:
        """What was said so far."""
        return self._session.live

    def send(self, samples: ArrayLike, *, end: bool = False) -> StreamUpdate:
        """Send the next samples: float or int16 [N], 16 kHz mono, N as it comes. `end`: these are the last."""
        return self._session.update(self._infer(**self._session.request(samples, end=end)))

    def finish(self, samples: ArrayLike = ()) -> Transcript:
        """Send the last samples, if any, and return all that was said."""
        self.send(samples, end=True)
        return self.live.transcript()

    def close(self) -> None:
        """Where `finish` was not reached, end the stream on the server as well as can be."""
        farewell = self._session.farewell()
        if farewell is not None:
            with suppress(ClientError):
                self._infer(**farewell)
