"""A stream's messages and results, with a simulated Triton."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moulin.errors import ServerUnavailable
from moulin.gateway.api_error import ApiError
from moulin.gateway.live_steps import Event, Finish, Hear, Step
from moulin.gateway.riva.messages import RecognitionConfig
from moulin.gateway.riva.session import END, RivaSession
from moulin.gateway.riva.wish import Wish
from tests.gateway.simulated_triton import SimulatedTriton

LOUD = (np.full(3200, 8000, "<i2")).tobytes()
QUIET = bytes(2 * 8000)


class Client:
    """Drives a session; `failing` is what Triton raises."""

    def __init__(self, *, interim_results: bool = True, failing: Exception | None = None, **config: Any) -> None:
        wish = Wish.of(RecognitionConfig(**{"sample_rate_hertz": 16_000} | config))
        options = {"rule2_min_trailing_silence_sec": 0.4}
        self.session = RivaSession(wish, interim_results, "live", options)
        self._triton, self._failing = SimulatedTriton(), failing
        self.results: list[Any] = []
        self.error: ApiError | None = None
        self.finished = False

    def send(self, *received: str | bytes) -> None:
        for message in received:
            self._take(self.session.receive(message))

    def rest(self) -> None:
        self._take(self.session.rest())

    def _take(self, steps: Any) -> None:
        for step in steps:
            self._do(step)

    def _do(self, step: Step) -> None:
        match step:
            case Event({"error": error}):
                self.error = error
            case Event({"result": result}):
                self.results.append(result)
            case Hear() if self._failing:
                self._take(self.session.failed(self._failing))
            case Hear():
                self._take(self.session.heard(step, self._triton.hear(step)))
            case Finish():
                self.finished = True


def transcripts(client: Client, *, final: bool) -> list[str]:
    return [result.alternatives[0].transcript for result in client.results if result.is_final == final]


def test_interim_and_final_results() -> None:
    client = Client()
    client.send(LOUD, QUIET, LOUD, END)
    assert transcripts(client, final=False) == ["W0", "W7"]
    assert transcripts(client, final=True) == ["W0.", "W7."]
    assert client.finished
    assert client.error is None


def test_final_results_alone() -> None:
    client = Client(interim_results=False)
    client.send(LOUD, QUIET, LOUD, END)
    assert transcripts(client, final=False) == []
    assert transcripts(client, final=True) == ["W0.", "W7."]


def test_times_go_on_behind_a_rest() -> None:
    client = Client(enable_word_time_offsets=True)
    client.send(LOUD)
    resting = [client.session.is_resting]
    client.rest()
    assert [*resting, client.session.is_resting] == [False, True]
    client.send(LOUD, END)
    final = [result for result in client.results if result.is_final]
    assert [result.alternatives[0].words[0].start_time for result in final] == [0, 200]
    assert [round(result.audio_processed, 3) for result in final] == [0.2, 0.4]


def test_no_audio() -> None:
    client = Client()
    client.send(END)
    assert client.finished
    assert client.results == []


@pytest.mark.parametrize(
    ("client", "sent", "status"),
    [
        (Client(encoding=2), [LOUD], 400),
        (Client(sample_rate_hertz=0), [b"\0\0", END], 400),
        (Client(failing=ServerUnavailable("gone")), [LOUD], 503),
    ],
)
def test_errors_end_it(client: Client, sent: list[str | bytes], status: int) -> None:
    client.send(*sent)
    assert client.finished
    assert client.error is not None
    assert client.error.status == status
