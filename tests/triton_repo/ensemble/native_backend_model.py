"""A Triton model.py that does what Triton's onnxruntime backend does: the file, with what config.pbtxt declares.

The pip-installed Triton has no such backend; with this in its place all else of a repository for it is Triton's own,
also that tensors are reshaped as their configs say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
        found = self._session.run(self._outputs, given)
        tensors = [pb_utils.Tensor(name, value) for name, value in zip(self._outputs, found, strict=True)]
        return pb_utils.InferenceResponse(tensors)
