"""The python-backend model of the streaming service. Runs inside Triton's stub process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import EngineError, MoulinError, StreamsFull, first_line
from moulin.launch.heartbeat import Heartbeat
from moulin.launch.shared_memory import DrainNote
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.processor import load_with_few_threads
from moulin.quoting import bounded, cut
from moulin.start_progress import progress_lines, tell
from moulin.triton_repo import contract
from moulin.triton_repo.exchange import Exchange, end_if_over
from moulin.triton_repo.json_text import result_text
from moulin.triton_repo.lane_service import LaneRequest, LaneService
from moulin.triton_repo.lane_tensors import LaneReply, is_bundle
from moulin.triton_repo.reply_delivery import ReplyDelivery
from moulin.triton_repo.shim_errors import is_invalid, unwritable
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_metrics import StreamingMetrics
from moulin.triton_repo.streaming_options import StreamingOptions
from moulin.triton_repo.streaming_service import StreamingService, StreamReply, StreamRequest
from moulin.triton_repo.stub_check import check_stub
from moulin.triton_repo.tensor_memory import LARGE_BYTES, release

_ENOUGH = 64
"""Requests of a call behind which no others need to gather."""

_Reply = StreamReply | LaneReply | MoulinError


class TritonPythonModel:
    """Converts tensors for `StreamingService` and `LaneService`, and their replies to tensors.

    Where all replies of a call are ready at once (to audio that completes no chunk), or within `linger_ms`, `execute`
    returns them together, which costs Triton and moulin less than one by one. Otherwise they are sent when they are
    ready, so that Triton can bring the next requests while the encoder runs. A thread of its own sends them, because
    sending waits for tritonserver, and the threads that made the replies have the next step to do.
    """

    def initialize(self, args: dict[str, str]) -> None:
        check_stub(pb_utils.Tensor)
        parameters = ShimParameters.read(args, StreamingOptions)
        options = parameters.options
        with progress_lines(args["model_instance_name"]):
            tell("loading weights")
            load_with_few_threads(parameters.share)
            recognizer = self._open(parameters, -(-options.max_streams // options.num_instances))
        is_draining = DrainNote.of_this_process().__bool__
        self._service = StreamingService(
            recognizer,
            idle_timeout_sec=options.idle_timeout_sec,
            takeover_sec=options.takeover_sec,
            max_step_sec=options.max_step_ms / 1000 if options.max_step_ms is not None else None,
            instances=options.num_instances,
            is_draining=is_draining,
        )
        self._lanes = LaneService(
            recognizer,
            self._service.scheduler,
            instance=args["model_instance_name"],
            check_load=self._service.check_load,
            is_draining=is_draining,
            lane_timeout_sec=options.lane_timeout_sec,
            idle_timeout_sec=options.idle_timeout_sec,
        )
        self._metrics = StreamingMetrics(self._service, self._lanes, args)
        self._linger_sec, self._gather_sec = options.linger_ms / 1000, options.queue_delay_ms / 1000
        self._heartbeat = Heartbeat()
        self._name, self._exchange = args["model_instance_name"], Exchange.of_this_process()
        self._delivery = ReplyDelivery.of_this_process(self._name)
        self._postman = _Postman()

    def _open(self, parameters: ShimParameters[StreamingOptions], capacity: int) -> StreamRecognizer:
        recognizer = open_stream_recognizer(
            parameters.encoder,
            parameters.engine,
            max_streams=capacity,
            max_batch=parameters.options.max_batch,
            options=parameters.options.stream,
            hotwords=parameters.hotwords,
            lm=parameters.lm,
        )
        recognizer.warm_up()
        return recognizer

    def execute(self, requests: list[Any]) -> list[Any] | None:
        clients = [_Client(request, self._delivery) for request in requests]
        call = _Call(len(clients), self._postman)
        for request, client in zip(requests, clients, strict=True):
            self._submit(request, client, partial(call.post, client))
        # A lane's reply, which is there at once, waits for no other.
        linger_sec = 0.0 if any(client.is_lane for client in clients) else self._linger_sec
        self._gather(len(clients), linger_sec)
        replies = call.collect(linger_sec)
        # All of them or none: it is undocumented what Triton does with some now and others later.
        together = len(replies) == len(clients) and self._delivery.has_room()
        responses = [client.response(replies[client]) for client in clients] if together else None
        end_if_over(self._exchange, self._name)
        if responses is None:
            for client, reply in replies.items():
                self._postman.post(client, reply)
        return responses

    def _gather(self, num_requests: int, linger_sec: float) -> None:
        """Let the next requests gather in Triton: handed over one by one they cost it and moulin far more. Its own
        queue delay would hold up lanes, too."""
        if not self._lanes.num_lanes and num_requests < _ENOUGH and linger_sec < self._gather_sec:
            time.sleep(self._gather_sec - linger_sec)

    def _submit(self, request: Any, client: _Client, respond: Callable[[_Reply], None]) -> None:
        try:
            # The usual request has few of the tensors: asking for them one by one takes longer.
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if is_bundle(tensors):
                client.is_lane = True
                respond(self._bundle(request, tensors))
                return
            parsed = _parse(request, tensors, client)
        except Exception as error:  # whatever a request makes fail must stay its own failure
            respond(EngineError(f"The request cannot be read: {type(error).__name__}: {cut(first_line(error), 200)}"))
        else:
            size = parsed.num_bytes
            self._service.submit(parsed, respond)
            if size >= LARGE_BYTES:
                release(request)

    def _bundle(self, request: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> LaneReply | MoulinError:
        flags = request.flags()
        start = bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START)
        end = bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
        try:
            return self._lanes.submit(LaneRequest(request.correlation_id(), start, end, tensors))
        except MoulinError as error:
            return error.with_traceback(None)  # its frames hold the request's tensors

    def finalize(self) -> None:
        self._heartbeat.close()
        self._metrics.close()
        self._service.close()
        self._lanes.close()
        self._postman.close()


class _Call:
    """The replies to the requests of one `execute`: collected until it returns, then left to the postman."""

    def __init__(self, num_requests: int, postman: _Postman) -> None:
        self._num_requests, self._postman = num_requests, postman
        self._replies: dict[_Client, _Reply] = {}
        self._returning = False
        self._complete = threading.Condition()

    def post(self, client: _Client, reply: _Reply) -> None:
        with self._complete:
            if not self._returning:
                self._replies[client] = reply
                if len(self._replies) == self._num_requests:
                    self._complete.notify()
                return
        self._postman.post(client, reply)

    def collect(self, linger_sec: float) -> dict[_Client, _Reply]:
        """The replies that have come, after a wait of up to `linger_sec` for all."""
        with self._complete:
            if linger_sec:
                self._complete.wait_for(lambda: len(self._replies) == self._num_requests, linger_sec)
            self._returning = True
            return self._replies


class _Postman:
    """Sends replies in the order in which they were posted, on a thread of its own."""

    def __init__(self) -> None:
        self._letters: SimpleQueue[tuple[_Client, _Reply] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._deliver, name="moulin-replies", daemon=True)
        self._thread.start()

    def post(self, client: _Client, reply: _Reply) -> None:
        self._letters.put((client, reply))

    def close(self) -> None:
        """Return when all posted replies are sent."""
        self._letters.put(None)
        self._thread.join()

    def _deliver(self) -> None:
        while letter := self._letters.get():
            client, reply = letter
            client.respond(reply)


class _Client:
    """The client's side of one request."""

    __slots__ = ("_answered", "_delivery", "_lock", "_request_id", "_sender", "is_lane", "wanted")

    def __init__(self, request: Any, delivery: ReplyDelivery) -> None:
        self.wanted: Sequence[str] = request.requested_output_names()
        self.is_lane = False
        self._request_id: str = request.request_id()
        self._sender = request.get_response_sender()
        self._delivery = delivery
        self._answered = False
        self._lock = threading.Lock()

    def respond(self, reply: _Reply) -> None:
        response = self._written(reply)
        with self._lock:
            self._answered = True
            self._delivery.send(self._sender, response)

    def response(self, reply: _Reply) -> Any:
        """The reply for `execute` to return."""
        with self._lock:
            self._answered = True
        return self._written(reply)

    def has_gone(self) -> bool:
        # tritonserver 2.51 ends with a segmentation fault where it is asked about a request that has been answered, and
        # this process aborts where there is no shared memory for the question.
        with self._lock:
            return not self._answered and self._delivery.has_room() and bool(self._sender.is_cancelled())

    def _written(self, reply: _Reply) -> Any:
        try:
            return self._response(reply)
        except Exception as error:  # a request must get a reply whatever happens
            return self._response(unwritable(error))

    def _response(self, reply: _Reply) -> Any:
        if isinstance(reply, MoulinError):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(bounded(str(reply)), _code(reply)))
        if isinstance(reply, LaneReply):
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, array) for name, array in reply.tensors().items() if name in self.wanted]
            )
        outputs = []
        if contract.TRANSCRIPTS in self.wanted:
            outputs.append(_text(contract.TRANSCRIPTS, reply.text.encode()))
        if contract.RESULT in self.wanted and reply.update is not None:
            outputs.append(_text(contract.RESULT, result_text(reply.update.to_dict(), self._request_id)))
        return pb_utils.InferenceResponse(outputs)


def _parse(request: Any, tensors: dict[str, np.ndarray[Any, Any]], client: _Client) -> StreamRequest:
    flags = request.flags()
    options = tensors.get(contract.OPTIONS)
    return StreamRequest(
        stream_id=request.correlation_id(),
        start=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
        end=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
        wav=tensors.get(contract.WAV),
        wav_lens=tensors.get(contract.WAV_LENS),
        options=None if options is None else options.ravel().tolist(),
        wants_update=contract.RESULT in client.wanted,
        is_cancelled=client.has_gone,
        wav_int16=tensors.get(contract.WAV_INT16),
        chunk_index=tensors.get(contract.CHUNK_INDEX),
    )


def _code(error: MoulinError) -> Any:
    if isinstance(error, StreamsFull):
        return pb_utils.TritonError.UNAVAILABLE
    return pb_utils.TritonError.INVALID_ARG if is_invalid(error) else pb_utils.TritonError.INTERNAL


def _text(name: str, text: bytes) -> Any:
    """A BYTES tensor [1]. Old streaming clients join all of its items, so it must have one dimension."""
    return pb_utils.Tensor(name, np.array([text], dtype=np.object_))
