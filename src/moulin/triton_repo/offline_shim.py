"""The python-backend model of the offline service. Runs inside Triton's stub process."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import triton_python_backend_utils as pb_utils

from moulin.errors import MoulinError
from moulin.launch.heartbeat import Heartbeat
from moulin.models.open_recognizer import open_recognizer
from moulin.processor import load_with_few_threads
from moulin.quoting import bounded
from moulin.start_progress import progress_lines, tell
from moulin.transcript import Transcript
from moulin.triton_repo import contract
from moulin.triton_repo.exchange import Exchange, end_if_over
from moulin.triton_repo.json_text import result_text
from moulin.triton_repo.offline_metrics import OfflineMetrics
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.offline_service import OfflineRequest, OfflineService, Utterance, unreadable
from moulin.triton_repo.offline_workers import OfflineWorkers
from moulin.triton_repo.reply_delivery import ReplyDelivery
from moulin.triton_repo.shim_errors import is_invalid, unwritable
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.stub_check import check_stub
from moulin.triton_repo.tensor_memory import release

_NICENESS = 10
"""Gives the CPU first to a streaming model beside, whose replies are more urgent than those to uploads."""


_Answer = list[Transcript] | MoulinError


class TritonPythonModel:
    """Converts tensors for `OfflineService`, and its answers to tensors.

    Where batches are cheaper, on a GPU, `execute` returns the answers of a batch. Elsewhere `OfflineWorkers` answer
    each request by itself, and `execute` returns when the last of its requests has been taken: the next ones come in
    while others are under way, and all cores have work.
    """

    def initialize(self, args: dict[str, str]) -> None:
        check_stub(pb_utils.Tensor)
        threads_of_triton = _threads()
        parameters = ShimParameters.read(args, OfflineOptions)
        with progress_lines(args["model_instance_name"]):
            tell("loading weights")
            load_with_few_threads(parameters.share)
            self._recognizer = open_recognizer(
                parameters.encoder,
                parameters.engine,
                options=parameters.options.decoding,
                hotwords=parameters.hotwords,
                lm=parameters.lm,
                max_audio_sec=parameters.options.max_audio_sec,
            )
        self._service = OfflineService(self._recognizer)
        workers = self._recognizer.num_workers
        self._workers = OfflineWorkers(self._service, workers) if workers > 1 else None
        self._metrics = OfflineMetrics(self._workers, args) if self._workers else None
        # The objects loaded so far stay: the garbage collector need not walk through PyTorch's while requests wait.
        gc.collect()
        gc.freeze()
        self._heartbeat = Heartbeat()
        self._name, self._exchange = args["model_instance_name"], Exchange.of_this_process()
        self._delivery = ReplyDelivery.of_this_process(self._name)
        self._executing = False
        self._turn = threading.Lock()  # of a reply, and of the beginning and end of `execute`
        if parameters.engine.gpu is None:
            _be_nice(but=threads_of_triton)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        if self._workers is None:
            return self._answer_together(requests)
        with self._turn:
            self._executing = True
        for request in requests:
            respond = partial(self._send, request.get_response_sender(), _Client.of(request))
            utterances = self._utterances(request)
            if isinstance(utterances, MoulinError):
                respond(utterances)
            else:
                self._workers.submit(utterances, respond)
        with self._turn:
            end_if_over(self._exchange, self._name)
            self._executing = False
        return None

    def _answer_together(self, requests: list[Any]) -> list[Any] | None:
        parsed = [_parse(request) for request in requests]
        answers = self._service.answer(parsed)
        for request, tensors, answer in zip(requests, parsed, answers, strict=True):
            if isinstance(answer, MoulinError) or tensors.is_mostly_padding:
                release(request)
        responses = [_Client.of(request).response(answer) for request, answer in zip(requests, answers, strict=True)]
        end_if_over(self._exchange, self._name)
        if self._delivery.has_room():
            return responses
        for request, response in zip(requests, responses, strict=True):
            self._delivery.send(request.get_response_sender(), response)
        return None

    def _utterances(self, request: Any) -> list[Utterance] | MoulinError:
        """The utterances of a request, in memory of their own, or what is wrong with it."""
        try:
            tensors = _parse(request)
            utterances = self._service.check(tensors)
            if isinstance(utterances, MoulinError) or tensors.is_mostly_padding:
                release(request)
        except Exception as error:  # whatever a request makes fail must stay its own failure
            return unreadable(error)
        return utterances

    def _send(self, sender: Any, client: _Client, answer: _Answer) -> None:
        """Reply to a request, unless Triton has stopped waiting for this process and answers with an error itself."""
        response = client.response(answer)
        with self._turn:
            if self._executing:
                end_if_over(self._exchange, self._name)
        self._delivery.send(sender, response)

    def finalize(self) -> None:
        self._heartbeat.close()
        if self._workers and self._metrics:
            self._workers.close()
            self._metrics.close()
        self._recognizer.close()


def _threads() -> set[int]:
    return {int(thread.name) for thread in Path("/proc/self/task").glob("[0-9]*")}


def _be_nice(*, but: set[int]) -> None:
    """Lower the priority of the threads that compute, and of those that they start. Not before: nobody is served
    during a load. Triton's own threads say that the process is alive (`exchange.py`): those of `but` that do not call
    this keep their priority."""
    for thread in _threads() - but | {threading.get_native_id()}:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, _NICENESS)


def _parse(request: Any) -> OfflineRequest:
    wav, wav_int16, wav_lens, options = (
        pb_utils.get_input_tensor_by_name(request, name)
        for name in (contract.WAV, contract.WAV_INT16, contract.WAV_LENS, contract.OPTIONS)
    )
    return OfflineRequest(
        wav=wav.as_numpy() if wav else None,
        wav_lens=wav_lens.as_numpy() if wav_lens else None,
        options=options.as_numpy().ravel().tolist() if options else None,
        wav_int16=wav_int16.as_numpy() if wav_int16 else None,
    )


@dataclass(frozen=True, slots=True)
class _Client:
    """What the client of a request wants to have; holds none of the request's tensors."""

    wanted: Sequence[str]
    request_id: str

    @classmethod
    def of(cls, request: Any) -> Self:
        return cls(request.requested_output_names(), request.request_id())

    def response(self, answer: _Answer) -> Any:
        try:
            return self._response(answer)
        except Exception as error:  # a request must get a reply whatever happens
            return self._response(unwritable(error))

    def _response(self, answer: _Answer) -> Any:
        if isinstance(answer, MoulinError):
            code = pb_utils.TritonError.INVALID_ARG if is_invalid(answer) else pb_utils.TritonError.INTERNAL
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(bounded(str(answer)), code))
        outputs = []
        if contract.TRANSCRIPTS in self.wanted:
            outputs.append(_column(contract.TRANSCRIPTS, [transcript.text.encode() for transcript in answer]))
        if contract.RESULT in self.wanted:
            results = [result_text(transcript.to_dict(), self.request_id) for transcript in answer]
            outputs.append(_column(contract.RESULT, results))
        return pb_utils.InferenceResponse(outputs)


def _column(name: str, texts: list[bytes]) -> Any:
    """A BYTES tensor [B, 1]. Clients join the words of a row, so it must be two-dimensional."""
    return pb_utils.Tensor(name, np.array([[text] for text in texts], dtype=np.object_))
