"""Runs the ensemble of a repository as Triton does, step by step after config.pbtxt, in this process.

For the backends that the pip-installed Triton has not: `onnxruntime` is run by ONNX Runtime, with what the config
declares and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb

from moulin.errors import MoulinError
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.triton_repo.ensemble.open_part import open_part
from moulin.triton_repo.ensemble.part import Part, Tensors
from tests.tensorrt_stand_in import StandIn

_DTYPES = {pb.TYPE_FP32: "float32", pb.TYPE_FP16: "float16", pb.TYPE_INT64: "int64", pb.TYPE_INT32: "int32"}


def read_config(model_dir: Path) -> Any:
    return text_format.Parse((model_dir / "config.pbtxt").read_text(), pb.ModelConfig())


class Component:
    """One model of the repository."""

    def __init__(self, repository: Path, name: str) -> None:
        self.config = read_config(repository / name)
        version = repository / name / "1"
        self._part: Part | None = None
        self.calls: list[int] = []
        """The number of rows of each call."""
        if self.config.backend == "python":
            values = {key: value.string_value for key, value in self.config.parameters.items()}
            self._part = open_part(values["part"], values, version, self._ask)
        elif self.config.backend == "onnxruntime":
            self._session: Any = onnxruntime.InferenceSession(version / self.config.default_model_filename)
        else:
            assert self.config.backend == "tensorrt"
            (group,) = self.config.instance_group
            self._session = PlanSession(version / self.config.default_model_filename, list(group.profile))
        self._repository = repository
        self._others: dict[str, Component] = {}

    def __call__(self, requests: Sequence[Tensors]) -> list[Tensors]:
        for request in requests:
            self._check(request, self.config.input)
        if self._part is None:
            answers = self._native(requests)
        else:
            answers = []
            for answer in self._part.answer(requests):
                assert not isinstance(answer, MoulinError), answer
                answers.append(answer)
        for answer in answers:
            self._check(answer, self.config.output)
        return answers

    def _check(self, tensors: Tensors, declared: Any) -> None:
        """What Triton refuses."""
        known = {tensor.name: tensor for tensor in declared}
        rows = {len(value) for value in tensors.values()}
        assert len(rows) == 1
        assert rows.pop() <= self.config.max_batch_size
        for name, value in tensors.items():
            assert value.dtype == np.dtype(_DTYPES.get(known[name].data_type, "object")), (self.config.name, name)
            dims = list(known[name].dims)
            assert len(dims) == value.ndim - 1, (self.config.name, name)
            assert all(dim in (-1, size) for dim, size in zip(dims, value.shape[1:], strict=True)), (name, value.shape)
        missing = known.keys() - tensors.keys()
        assert all(known[name].optional for name in missing), missing

    def _native(self, requests: Sequence[Tensors]) -> list[Tensors]:
        """All requests in one batch, which Triton only makes of those of one shape."""
        batch = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
        self.calls.append(len(next(iter(batch.values()))))
        outputs = [tensor.name for tensor in self.config.output]
        found = self._session.run(outputs, {tensor.name: _reshaped(tensor, batch) for tensor in self.config.input})
        ends = np.cumsum([len(next(iter(request.values()))) for request in requests])[:-1]
        columns = {}
        for tensor, value in zip(self.config.output, found, strict=True):
            columns[tensor.name] = np.split(value[:, None] if tensor.HasField("reshape") else value, ends)
        return [{name: rows[number] for name, rows in columns.items()} for number in range(len(requests))]

    def _ask(self, model: str, tensors: Tensors, outputs: Sequence[str]) -> list[NDArray[Any]]:
        if model not in self._others:
            self._others[model] = Component(self._repository, model)
        (answer,) = self._others[model]([tensors])
        return [answer[output] for output in outputs]


class PlanSession:
    """A plan as Triton's TensorRT backend runs it: by the profiles that the config names."""

    def __init__(self, file: Path, profiles: list[str]) -> None:
        self._plan = TensorRtPlan(file, StandIn(), torch.device("cpu"))
        assert profiles == [str(number) for number in range(len(self._plan.profiles))] or not profiles

    def run(self, outputs: list[str], inputs: Tensors) -> list[NDArray[Any]]:
        assert set(outputs) == set(self._plan.outputs)
        assert {name: torch.from_numpy(value).dtype for name, value in inputs.items()} == self._plan.inputs
        with self._plan.computing():
            found = self._plan.run({name: torch.from_numpy(value) for name, value in inputs.items()})
        return [found[name].numpy() for name in outputs]


def _reshaped(tensor: Any, batch: Tensors) -> NDArray[Any]:
    value = batch[tensor.name]
    return value[:, 0] if tensor.HasField("reshape") else value


def run_ensemble(repository: Path, model: str, requests: Sequence[Tensors]) -> list[Tensors]:
    """The outputs for `requests`, which go through every step together."""
    config = read_config(repository / model)
    assert config.platform == "ensemble"
    values = [dict(request) for request in requests]
    for step in config.ensemble_scheduling.step:
        component = Component(repository, step.model_name)
        inputs = [{name: found[value] for name, value in step.input_map.items() if value in found} for found in values]
        for found, answer in zip(values, component(inputs), strict=True):
            found.update({value: answer[name] for name, value in step.output_map.items()})
    return [{tensor.name: found[tensor.name] for tensor in config.output} for found in values]
