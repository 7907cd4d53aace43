"""Stands for the Python package tensorrt, which no machine here has: the calls that TensorRT 10 documents, with their
rules, and behind them ONNX Runtime on the memory at the addresses that it is given.

A plan is the ONNX file that it was built of, and the profiles. What it checks is what TensorRT checks: shapes against
the chosen profile, that a change of profile forgets shapes, that every tensor has an address.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from moulin.launch.tensorrt_libraries import TENSORRT
from moulin.tensorrt_engine import ready_plan as open_tensorrt

Arrays = dict[str, Any]


def install(monkeypatch: pytest.MonkeyPatch, cache: Path) -> StandIn:
    """TensorRT as if it were there, on a GPU whose memory is the machine's, with engines in `cache`."""
    module = StandIn()
    here = open_tensorrt._Here(TENSORRT, module, torch.device("cpu"))
    monkeypatch.setattr(open_tensorrt, "_libraries_on", lambda *_: here)
    monkeypatch.setattr(open_tensorrt, "gpu_name", lambda _gpu: "NVIDIA H200, 9.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return module


class BaseLogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


class StandIn:
    """The module. `damage` may change what engines give; calls named in `failing` fail as TensorRT's do."""

    __version__ = "10.13.2.6"
    ILogger = BaseLogger
    IProgressMonitor = IProgressMonitor
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")

    def __init__(self, damage: Callable[[Arrays], Arrays] = lambda arrays: arrays) -> None:
        self.damage = damage
        self.failing: set[str] = set()
        self.builds = 0
        self.profiles_used: list[int] = []

    def nptype(self, dtype: type[np.generic]) -> type[np.generic]:
        return dtype

    def Builder(self, _logger: object) -> Any:
        return SimpleNamespace(
            create_network=lambda _flags: SimpleNamespace(model=None),
            create_builder_config=_Config,
            create_optimization_profile=_Profile,
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: Any, _logger: object) -> Any:
        def parse(file: str) -> bool:
            network.model = onnx.load(file).SerializeToString()
            return True

        return SimpleNamespace(parse_from_file=parse, num_errors=0)

    def Runtime(self, logger: BaseLogger) -> Any:
        self.logger = logger
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _build(self, network: Any, config: _Config) -> bytes:
        self.builds += 1
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", None, 1)
            config.progress_monitor.phase_start("Tactic Selection", "Building Engine", 1)
            assert config.progress_monitor.step_complete("Tactic Selection", 0)
            config.progress_monitor.phase_finish("Tactic Selection")
            config.progress_monitor.phase_finish("Building Engine")
        return json.dumps(config.profiles).encode() + b"\n" + bytes(network.model)

    def _deserialize(self, plan: bytes) -> Engine | None:
        profiles, _, model = plan.partition(b"\n")
        try:
            return Engine(self, json.loads(profiles), onnx.load_from_string(model))
        except ValueError:
            return None


class _Config:
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.profiles: list[dict[str, Any]] = []

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        assert pool == "workspace"
        assert size > 0

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, best: Any, largest: Any) -> None:
        self.shapes[name] = (least, best, largest)


class Engine:
    def __init__(self, module: StandIn, profiles: list[dict[str, Any]], model: onnx.ModelProto) -> None:
        self.module, self.profiles = module, profiles
        self.inputs = [tensor.name for tensor in model.graph.input]
        self.outputs = [tensor.name for tensor in model.graph.output]
        self._types = {
            tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type).type
            for tensor in (*model.graph.input, *model.graph.output)
        }
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.session = onnxruntime.InferenceSession(
            _in_known_types(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, number: int) -> str:
        names: list[str] = [*self.inputs, *self.outputs]
        return names[number]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> type[np.generic]:
        return self._types[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Any]:
        return list(self.profiles[profile][name])

    @functools.cache  # noqa: B019
    def shapes_for(self, inputs: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, tuple[int, ...]]:
        """Of the outputs, found by running it once."""
        ones = {name: np.ones(shape, self.get_tensor_dtype(name)) for name, shape in inputs}
        found = self.session.run(self.outputs, ones)
        return {name: value.shape for name, value in zip(self.outputs, found, strict=True)}

    def create_execution_context(self) -> Context | None:
        return None if "create_execution_context" in self.module.failing else Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert isinstance(stream, int)
        self._profile = profile
        self._shapes.clear()
        return profile < len(self._engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, largest = self._engine.profiles[self._profile][name]
        if not all(low <= size <= high for low, size, high in zip(least, shape, largest, strict=True)):
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self._engine.inputs or name in self._engine.outputs
        self._addresses[name] = address
        return address != 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if set(self._shapes) != set(self._engine.inputs):
            return (-1,)
        return self._engine.shapes_for(tuple(sorted(self._shapes.items())))[name]

    def execute_async_v3(self, stream: int) -> bool:
        assert isinstance(stream, int)
        engine, module = self._engine, self._engine.module
        if "execute_async_v3" in module.failing:
            module.logger.log(BaseLogger.Severity.ERROR, "enqueueV3: Error Code 1: Cuda Runtime ()\nmore")
            return False
        if set(self._addresses) != {*engine.inputs, *engine.outputs}:
            return False
        module.profiles_used.append(self._profile)
        given = {
            name: _at(self._addresses[name], self._shapes[name], engine.get_tensor_dtype(name)).copy()
            for name in engine.inputs
        }
        found = module.damage(dict(zip(engine.outputs, engine.session.run(engine.outputs, given), strict=True)))
        for name, value in found.items():
            _at(self._addresses[name], value.shape, engine.get_tensor_dtype(name))[...] = value
        return True


def _at(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory: Any = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def _in_known_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX Runtime knows no bfloat16 on a CPU: float32 with weights that are rounded to it."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            tensor.CopyFrom(_widened(tensor))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.BFLOAT16:
                attribute.t.CopyFrom(_widened(attribute.t))
    del model.graph.value_info[:]
    return model


def _widened(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    assert values.dtype == ml_dtypes.bfloat16
    return numpy_helper.from_array(values.astype(np.float32), tensor.name)
