"""The streaming shim's dealings with Triton's response senders, with a double of `triton_python_backend_utils`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format

from moulin.errors import AudioError, EngineError, MoulinError, OptionsError, StreamError, StreamsFull
from moulin.launch.shared_memory import SHM_DIR
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import NO_FILES
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_config import streaming_config
from moulin.triton_repo.streaming_options import StreamingOptions
from moulin.triton_repo.streaming_service import StreamReply

from .shim_double import imported_shim


class _TritonError:
    INVALID_ARG, UNAVAILABLE, INTERNAL = "INVALID_ARG", "UNAVAILABLE", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class _Sender:
    """Crashes, as Triton's does, when it is asked about a request that has its reply."""

    def __init__(self) -> None:
        self.cancelled = False
        self.asked = 0
        self.asking = threading.Event()
        self.sent: list[Any] = []
        self.may_say = threading.Event()
        self.may_say.set()

    def is_cancelled(self) -> bool:
        self.asked += 1
        self.asking.set()
        assert self.may_say.wait(60)
        assert not self.sent, "segmentation fault"
        return self.cancelled

    def send(self, response: Any, flags: int) -> None:
        assert flags == 1
        self.sent.append(response)


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with imported_shim(monkeypatch, "streaming", TritonError=_TritonError) as module:
        yield module


@pytest.fixture
def sender() -> _Sender:
    return _Sender()


@pytest.fixture
def client(shim: Any, sender: _Sender) -> Any:
    request = SimpleNamespace(
        requested_output_names=lambda: ["TRANSCRIPTS"],
        request_id=lambda: "",
        get_response_sender=lambda: sender,
    )
    return shim._Client(request, shim.ReplyDelivery("transducer_streaming_0_0", 0, SHM_DIR))


def test_a_client_says_whether_it_has_gone_until_it_has_its_reply(client: Any, sender: _Sender) -> None:
    assert not client.has_gone()
    sender.cancelled = True
    assert client.has_gone()
    client.respond(StreamReply("HELLO", None))
    assert sender.sent[0].outputs == [("TRANSCRIPTS", (1,), [b"HELLO"])]
    asked = sender.asked
    assert not client.has_gone()
    assert sender.asked == asked


def test_a_reply_waits_for_the_question_that_is_under_way(client: Any, sender: _Sender) -> None:
    sender.may_say.clear()
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(client.has_gone()))
    replying = threading.Thread(target=client.respond, args=(StreamReply("HELLO", None),))
    asking.start()
    assert sender.asking.wait(60)
    replying.start()
    replying.join(0.05)
    assert not sender.sent
    sender.may_say.set()
    asking.join()
    replying.join()
    assert (answers, len(sender.sent)) == ([False], 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AudioError("a"), "INVALID_ARG"),
        (OptionsError("a"), "INVALID_ARG"),
        (StreamError("a"), "INVALID_ARG"),
        (StreamsFull("a"), "UNAVAILABLE"),
        (EngineError("a"), "INTERNAL"),
    ],
)
def test_codes_of_errors(client: Any, sender: _Sender, error: MoulinError, code: str) -> None:
    client.respond(error)
    assert (sender.sent[0].error.message, sender.sent[0].error.code) == ("a", code)


def test_replies_that_come_in_time_go_back_together_and_others_by_post(shim: Any) -> None:
    posted: list[Any] = []
    postman = SimpleNamespace(post=lambda *letter: posted.append(letter))
    in_time = shim._Call(2, postman)
    in_time.post("a", "A")
    replying = threading.Timer(0.01, in_time.post, ("b", "B"))
    replying.start()
    assert in_time.collect(60) == {"a": "A", "b": "B"}
    replying.join()
    late = shim._Call(2, postman)
    late.post("a", "A")
    assert late.collect(0) == {"a": "A"}
    assert not posted
    late.post("b", "B")
    assert posted == [("b", "B")]


@pytest.mark.parametrize(
    ("num_lanes", "num_requests", "linger_sec", "slept"),
    [(0, 1, 0.0, [0.25]), (0, 1, 0.125, [0.125]), (0, 64, 0.0, []), (0, 1, 0.25, []), (1, 1, 0.0, [])],
)
def test_requests_gather_where_no_lane_is_open(
    shim: Any, monkeypatch: pytest.MonkeyPatch, num_lanes: int, num_requests: int, linger_sec: float, slept: list[float]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(shim.time, "sleep", waits.append)
    model = object.__new__(shim.TritonPythonModel)
    model._lanes, model._gather_sec = SimpleNamespace(num_lanes=num_lanes), 0.25
    model._gather(num_requests, linger_sec)
    assert waits == slept


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_what_config_pbtxt_says_reaches_the_engine(
    shim: Any, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool
) -> None:
    asked: dict[str, Any] = {}

    def open_stream_recognizer(encoder: Path, engine: EngineChoice, **options: Any) -> Any:
        asked.update(options, encoder=encoder, engine=engine)
        return SimpleNamespace(warm_up=lambda: None)

    monkeypatch.setattr(shim, "open_stream_recognizer", open_stream_recognizer)
    engine = EngineChoice(kind="torch", precision="bf16", device="cuda:1", threads=4, cuda_graphs=cuda_graphs)
    config = streaming_config(StreamingOptions(engine=engine, max_batch=7, encoder="bundle/epoch-1.pt"))
    fields = json_format.MessageToDict(config, preserving_proto_field_name=True)
    args = {"model_config": json.dumps(fields), "model_repository": "/models/m", "model_version": "1"}
    shim.TritonPythonModel()._open(ShimParameters.read(args, StreamingOptions), 3)
    assert asked == {
        "encoder": Path("/models/m/1/bundle/epoch-1.pt"),
        "engine": replace(engine, workers=4),
        "max_streams": 3,
        "max_batch": 7,
        "hotwords": (),
        "lm": NO_FILES,
        "options": StreamOptions(),
    }


def test_a_reply_that_cannot_be_written_becomes_an_error(client: Any, sender: _Sender) -> None:
    client.respond(StreamReply("\ud800", None))  # half of a surrogate pair
    assert sender.sent[0].error.code == "INTERNAL"
    assert sender.sent[0].error.message.startswith("The reply cannot be written: UnicodeEncodeError: ")


def test_nobody_is_asked_whether_a_client_has_gone_without_shared_memory(
    client: Any, sender: _Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.cancelled = True
    monkeypatch.setattr(client._delivery, "has_room", lambda: False)
    assert not client.has_gone()
    assert not sender.asked
