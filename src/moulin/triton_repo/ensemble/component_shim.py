"""The python-backend model of every component. Runs inside Triton's stub process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from moulin.errors import EngineError, MoulinError
from moulin.launch.heartbeat import Heartbeat
from moulin.quoting import bounded
from moulin.triton_repo.ensemble.open_part import open_part
from moulin.triton_repo.ensemble.part import Tensors
from moulin.triton_repo.exchange import Exchange, end_if_over
from moulin.triton_repo.shim_errors import is_invalid
from moulin.triton_repo.stub_check import check_stub


class TritonPythonModel:
    """Converts tensors for a `Part`, and its answers to tensors."""

    def initialize(self, args: dict[str, str]) -> None:
        check_stub(pb_utils.Tensor)
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        values = {name: value["string_value"] for name, value in config["parameters"].items()}
        version = Path(args["model_repository"], args["model_version"])
        self._part = open_part(values["part"], values, version, ask)
        self._heartbeat = Heartbeat()
        self._name, self._exchange = args["model_instance_name"], Exchange.of_this_process()

    def execute(self, requests: list[Any]) -> list[Any]:
        answers = self._part.answer([self._tensors(request) for request in requests])
        responses = [_response(request, answer) for request, answer in zip(requests, answers, strict=True)]
        end_if_over(self._exchange, self._name)
        return responses

    def finalize(self) -> None:
        self._heartbeat.close()
        self._part.close()

    def _tensors(self, request: Any) -> Tensors:
        found = ((name, pb_utils.get_input_tensor_by_name(request, name)) for name in self._inputs)
        return {name: tensor.as_numpy() for name, tensor in found if tensor is not None}


def _response(request: Any, answer: Tensors | MoulinError) -> Any:
    if isinstance(answer, MoulinError):
        code = pb_utils.TritonError.INVALID_ARG if is_invalid(answer) else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(bounded(str(answer)), code))
    wanted = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, answer[name]) for name in answer if name in wanted])


def ask(model: str, tensors: Tensors, outputs: Sequence[str]) -> list[Any]:
    """Call another model of the repository: see `Ask`. The outputs are in the CPU's memory, where the search is."""
    request = pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[pb_utils.Tensor(name, value) for name, value in tensors.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = request.exec()
    if response.has_error():
        raise EngineError(f"The model {model} failed: {response.error().message()}")
    # Copies: the response's memory is Triton's.
    return [pb_utils.get_output_tensor_by_name(response, output).as_numpy().copy() for output in outputs]
