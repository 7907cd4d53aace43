"""The python-backend model of the streaming service. Runs inside Triton's stub process."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from moulin.engine.open_stream_recognizer import open_stream_recognizer
from moulin.errors import AudioError, MoulinError, OptionsError, StreamError, StreamsFull
from moulin.streaming.options import StreamOptions
from moulin.triton_repo import contract
from moulin.triton_repo.streaming_service import StreamingService, StreamReply, StreamRequest


class TritonPythonModel:
    """Tensors to `StreamingService` and back.

    Replies are sent when they are ready, from the threads that made them: `execute` only hands requests over, so that
    Triton can bring the next ones while the encoder runs.
    """

    def initialize(self, args: dict[str, str]) -> None:
        version_dir = Path(args["model_repository"]) / args["model_version"]
        values = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in values.items()}
        threads = int(parameters["threads"] or len(os.sched_getaffinity(0)))
        instances = int(parameters["instances"])
        recognizer = open_stream_recognizer(
            version_dir / parameters["encoder"],
            device=parameters["device"],
            threads=threads,
            workers=max(1, threads // instances),
            max_streams=-(-int(parameters["max_streams"]) // instances),
            max_batch=int(parameters["max_batch"] or 0) or None,
            options=StreamOptions().updated_from_json(parameters["options"]),
        )
        recognizer.warm_up()
        self._service = StreamingService(recognizer, idle_timeout_sec=float(parameters["idle_timeout_sec"]))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            wanted = request.requested_output_names()
            self._service.submit(_parse(request, sender, wanted), partial(_respond, sender, wanted))

    def finalize(self) -> None:
        self._service.close()


def _parse(request: Any, sender: Any, wanted: Sequence[str]) -> StreamRequest:
    def tensor(name: str) -> Any:
        return pb_utils.get_input_tensor_by_name(request, name).as_numpy()

    options = pb_utils.get_input_tensor_by_name(request, contract.OPTIONS)
    return StreamRequest(
        stream_id=int(tensor(contract.CORRID).item()),
        start=bool(tensor(contract.START).item()),
        end=bool(tensor(contract.END).item()),
        # A copy: the request's memory is Triton's again as soon as `execute` returns.
        wav=tensor(contract.WAV).copy(),
        wav_lens=tensor(contract.WAV_LENS),
        options=options.as_numpy().item() if options else None,
        wants_update=contract.RESULT in wanted,
        is_cancelled=sender.is_cancelled,
    )


def _respond(sender: Any, wanted: Sequence[str], reply: StreamReply | MoulinError) -> None:
    sender.send(_response(wanted, reply), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _response(wanted: Sequence[str], reply: StreamReply | MoulinError) -> Any:
    if isinstance(reply, MoulinError):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(reply), _code(reply)))
    outputs = []
    if contract.TRANSCRIPTS in wanted:
        outputs.append(_text(contract.TRANSCRIPTS, reply.text))
    if contract.RESULT in wanted and reply.update is not None:
        outputs.append(_text(contract.RESULT, json.dumps(reply.update.to_dict(), ensure_ascii=False)))
    return pb_utils.InferenceResponse(outputs)


def _code(error: MoulinError) -> Any:
    if isinstance(error, StreamsFull):
        return pb_utils.TritonError.UNAVAILABLE
    invalid = isinstance(error, AudioError | OptionsError | StreamError)
    return pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL


def _text(name: str, text: str) -> Any:
    """A BYTES tensor [1]. Old streaming clients join all of its items, so it must have one dimension."""
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))
