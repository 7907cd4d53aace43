"""The offline shim's dealings with Triton's response senders, with a double of `triton_python_backend_utils`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.decoding.options import DecodingOptions
from moulin.errors import MoulinError
from moulin.launch.shared_memory import SHM_DIR
from moulin.transcript import Transcript
from moulin.triton_repo.offline_service import OfflineService
from moulin.triton_repo.offline_workers import OfflineWorkers

from .shim_double import imported_shim


class Engine:
    """Hears the length of each waveform, when it may."""

    options = DecodingOptions()

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def check_form(self, waveform: Floats, *, what: str = "waveform") -> Floats:  # noqa: ARG002
        return waveform

    def transcribe_each(
        self,
        waveforms: Sequence[Floats],
        options: Sequence[DecodingOptions],  # noqa: ARG002
        names: Sequence[str],  # noqa: ARG002
    ) -> list[Transcript | MoulinError]:
        assert self.may_answer.wait(60)
        return [Transcript(str(len(waveform)), (), len(waveform) / 16000) for waveform in waveforms]


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    error = type(
        "TritonError",
        (),
        {"INVALID_ARG": 3, "INTERNAL": 2, "__init__": lambda self, *said: setattr(self, "said", said)},
    )
    inputs = {"get_input_tensor_by_name": lambda request, name: request.tensors.get(name)}
    with imported_shim(monkeypatch, "offline", TritonError=error, **inputs) as module:
        yield module


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def model(shim: Any, engine: Engine) -> Iterator[Any]:
    loaded = object.__new__(shim.TritonPythonModel)
    loaded._service = OfflineService(engine)
    loaded._workers = OfflineWorkers(loaded._service, 2)
    loaded._exchange, loaded._name = None, "transducer_0_0"
    loaded._delivery = shim.ReplyDelivery(loaded._name, 0, SHM_DIR)
    loaded._executing, loaded._turn = False, threading.Lock()
    yield loaded
    engine.may_answer.set()
    if loaded._workers:
        loaded._workers.close()


class Damaged:
    def as_numpy(self) -> Any:
        raise RuntimeError("a string that is cut off")


def request(length: int, sent: SimpleQueue[Any], **more: Any) -> Any:
    arrays = {"WAV": np.zeros((1, 10), np.float32), "WAV_LENS": np.array([[length]], np.int32)}
    tensors = {name: SimpleNamespace(as_numpy=lambda array=array: array) for name, array in arrays.items()} | more
    return SimpleNamespace(
        tensors=tensors,
        inputs=lambda: (),
        requested_output_names=lambda: ["TRANSCRIPTS"],
        request_id=lambda: "",
        get_response_sender=lambda: SimpleNamespace(send=lambda response, flags: sent.put((length, response, flags))),
    )


def test_each_request_gets_its_reply_and_a_damaged_one_its_error(model: Any, engine: Engine) -> None:
    sent: SimpleQueue[Any] = SimpleQueue()
    engine.may_answer.set()
    assert (
        model.execute([request(7, sent), request(1, sent, OPTIONS=Damaged()), request(11, sent), request(5, sent)])
        is None
    )
    replies = {length: (response, flags) for length, response, flags in (sent.get(timeout=60) for _ in range(4))}
    assert {flags for _, flags in replies.values()} == {1}
    assert replies[7][0].outputs == [("TRANSCRIPTS", (1, 1), [[b"7"]])]
    assert replies[5][0].outputs == [("TRANSCRIPTS", (1, 1), [[b"5"]])]
    assert replies[1][0].error.said == ("The request cannot be read: RuntimeError: a string that is cut off", 2)
    assert replies[11][0].error.said[1] == 3


def test_execute_returns_while_its_requests_are_under_way(model: Any, engine: Engine) -> None:
    sent: SimpleQueue[Any] = SimpleQueue()
    model.execute([request(3, sent), request(4, sent)])
    assert sent.empty()
    engine.may_answer.set()
    assert {sent.get(timeout=60)[0] for _ in range(2)} == {3, 4}


def test_no_reply_goes_out_behind_triton_giving_up_on_the_call(
    model: Any, engine: Engine, shim: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks before each reply while `execute` has not returned, and before it returns; later nobody waits."""
    looked: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(shim, "end_if_over", lambda _, name: looked.put(name))
    sent: SimpleQueue[Any] = SimpleQueue()
    calling = threading.Thread(target=model.execute, args=([request(length, sent) for length in (1, 2, 3)],))
    calling.start()
    engine.may_answer.set()  # the third waits for one of the others
    calling.join(60)
    for _ in range(3):
        sent.get(timeout=60)
    seen = looked.qsize()
    assert 2 <= seen <= 4
    model._send(SimpleNamespace(send=lambda *_, **__: None), shim._Client(["TRANSCRIPTS"], ""), [])
    assert looked.qsize() == seen


def test_a_reply_that_cannot_be_written_becomes_an_error(model: Any, shim: Any) -> None:
    sent: SimpleQueue[Any] = SimpleQueue()
    answer = [Transcript("\ud800", (), 1.0)]  # half of a surrogate pair
    model._send(request(1, sent).get_response_sender(), shim._Client(["TRANSCRIPTS"], ""), answer)
    said, code = sent.get(timeout=60)[1].error.said
    assert said.startswith("The reply cannot be written: UnicodeEncodeError: ")
    assert code == 2


@pytest.mark.parametrize("has_room", [True, False])
def test_replies_of_a_batch_go_one_by_one_where_memory_is_short(
    has_room: bool, model: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: SimpleQueue[Any] = SimpleQueue()
    engine.may_answer.set()
    monkeypatch.setattr(model, "_workers", None)
    monkeypatch.setattr(model._service, "answer", lambda requests: [[Transcript("a", (), 1.0)] for _ in requests])
    monkeypatch.setattr(model._delivery, "has_room", lambda: has_room)
    monkeypatch.setattr(model._delivery, "send", lambda sender, response: sender.send(response, flags=1))
    returned = model.execute([request(3, sent), request(4, sent)])
    assert (returned is not None, sent.qsize()) == ((True, 0) if has_room else (False, 2))
