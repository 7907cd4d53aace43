"""trtexec and TensorRT's Python API, which no machine here has: recorded fakes stand for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.errors import EngineError
from moulin.launch.tensorrt_libraries import TENSORRT
from moulin.tensorrt_engine.build import build_plan, prepare
from moulin.tensorrt_engine.builders import (
    BuildRequest,
    PythonBuilder,
    TrtexecBuilder,
    find_builder,
    trtexec_arguments,
)
from moulin.tensorrt_engine.plan_file import facts_file
from tests.tensorrt_stand_in import BaseLogger

from .fake_trtexec import CONFORMER, PROFILES, trtexec


def test_a_plan_by_trtexec(tmp_path: Path) -> None:
    builder = TrtexecBuilder(trtexec(tmp_path))
    assert builder.version == "10.3.0"
    spec = load_bundle(CONFORMER)
    prepared = prepare(spec, max_batch=8, max_seconds=3)
    to = tmp_path / "engines"
    plan = build_plan(spec, prepared, to, builder, "NVIDIA H200, 9.0", "fp16")
    told = (tmp_path / "told").read_text().splitlines()
    assert [line for line in told if "Shapes" in line or line.startswith("--profile")] == [
        "--minShapes=x:1x9x80,x_lens:1",
        "--optShapes=x:8x169x80,x_lens:8",
        "--maxShapes=x:8x330x80,x_lens:8",
    ]
    assert {"--stronglyTyped", "--skipInference", "--memPoolSize=workspace:4096M"} <= set(told)
    # What TensorRT was given is the graph in half precision, with the names and types of the file's own.
    given = onnx.load(plan)
    assert {tensor.data_type for tensor in given.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    assert [tensor.name for tensor in given.graph.input] == ["x", "x_lens"]
    assert sorted(path.name for path in to.iterdir()) == sorted([plan.name, facts_file(plan).name])
    # The second time it is there.
    assert build_plan(spec, prepared, to, builder, "NVIDIA H200, 9.0", "fp16") == plan
    assert (tmp_path / "told").read_text().splitlines() == told
    other = build_plan(spec, prepared, to, builder, "NVIDIA L4, 8.9", "fp16")
    assert other != plan


def test_several_profiles_have_numbers() -> None:
    arguments = trtexec_arguments(BuildRequest(Path("a.onnx"), Path("a.plan"), PROFILES, 0.5))
    assert arguments == [
        "--onnx=a.onnx",
        "--saveEngine=a.plan",
        "--stronglyTyped",
        "--memPoolSize=workspace:512M",
        "--skipInference",
        "--profile=0",
        "--minShapes=x:1x9x80,x_lens:1",
        "--optShapes=x:4x50x80,x_lens:4",
        "--maxShapes=x:8x100x80,x_lens:8",
        "--profile=1",
        "--minShapes=x:1x100x80,x_lens:1",
        "--optShapes=x:4x200x80,x_lens:4",
        "--maxShapes=x:8x400x80,x_lens:8",
    ]


def test_what_goes_wrong_in_trtexec(tmp_path: Path) -> None:
    reason = "[11/24/2026-07:00:00] [E] Error[2]: Requested amount of GPU memory could not be allocated"
    failing = TrtexecBuilder(trtexec(tmp_path, ends=f"echo '{reason}'; exit 1"))
    request = BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", PROFILES, 4)
    with pytest.raises(EngineError, match=r"could not build the engine: Error\[2\]: Requested .*run it yourself"):
        failing.build(request)
    lines: list[str] = []
    with pytest.raises(EngineError):
        TrtexecBuilder(trtexec(tmp_path, ends=f"echo '{reason}'; exit 1"), log=lines.append).build(request)
    assert lines[1:] == [f"  {reason}"]  # after its banner
    with pytest.raises(EngineError, match="exit status 0"):  # and no plan
        TrtexecBuilder(trtexec(tmp_path, ends="true")).build(request)
    with pytest.raises(EngineError, match="--help to print its version, got"):
        TrtexecBuilder(trtexec(tmp_path, banner="hello"))
    assert TrtexecBuilder(trtexec(tmp_path, banner="[TensorRT v8601]")).version == "8.6.1"


class Recorder:
    """Stands for TensorRT's module: notes every call with its arguments."""

    __version__ = "10.13.2.6"
    ILogger = BaseLogger
    needs = 0
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    def __init__(
        self, plan: bytes | None, *, parses: bool = True, strongly_typed: bool = True, profile: int = 0
    ) -> None:
        self._profile = profile
        self.calls: list[tuple[Any, ...]] = []
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**({"STRONGLY_TYPED": 1} if strongly_typed else {}))
        self._plan, self._parses = plan, parses

    def Builder(self, logger: BaseLogger) -> Any:
        self._logger = logger

        def profile() -> Any:
            shapes: dict[str, Any] = {}
            return SimpleNamespace(shapes=shapes, set_shape=lambda name, *three: shapes.__setitem__(name, three))

        config = SimpleNamespace(
            set_memory_pool_limit=lambda *call: self.calls.append(("limit", *call)),
            add_optimization_profile=self._added,
        )
        return SimpleNamespace(
            create_network=lambda flags: self.calls.append(("network", flags)),
            create_builder_config=lambda: config,
            create_optimization_profile=profile,
            build_serialized_network=self._build,
        )

    def _build(self, *_: object) -> bytes | None:
        levels = BaseLogger.Severity
        self._logger.log(levels.WARNING, "Detected layernorm nodes in FP16.")
        self._logger.log(levels.VERBOSE, "Compiler backend convergence mode enabled")
        if self.needs:
            self._logger.log(levels.VERBOSE, f" (foreignNode) Exceeded mem budget of 429. Need {self.needs}")
        if self._plan is None:
            self._logger.log(levels.INTERNAL_ERROR, "Error Code 1: Myelin (\x1b[1m" + "w" * 1000 + ")\nIn compileGraph")
            self._logger.log(levels.ERROR, "Error Code 4")
        return self._plan

    def _added(self, profile: Any) -> int:
        self.calls.append(("profile", profile.shapes))
        return self._profile

    def OnnxParser(self, _network: object, _logger: object) -> Any:
        def parse(file: str) -> bool:
            self.calls.append(("parse", file))
            return self._parses

        return SimpleNamespace(
            parse_from_file=parse, num_errors=1, get_error=lambda number: f"In node {number}: UNSUPPORTED_NODE"
        )


def test_a_plan_by_the_python_api(tmp_path: Path) -> None:
    recorder = Recorder(b"plan")
    builder = PythonBuilder(TENSORRT, recorder, capability="9.0")
    assert builder.version == "10.13.2"
    request = BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", PROFILES, 2)
    builder.build(request)
    assert request.plan.read_bytes() == b"plan"
    assert recorder.calls == [
        ("network", 2),
        ("parse", str(request.onnx)),
        ("limit", "workspace", 2**31),
        *(("profile", {name: dataclasses.astuple(found) for name, found in p.items()}) for p in PROFILES),
    ]
    later = Recorder(b"plan", strongly_typed=False)
    PythonBuilder(TENSORRT, later, capability="9.0").build(request)
    assert later.calls[0] == ("network", 0)


def test_what_goes_wrong_in_the_python_api(tmp_path: Path) -> None:
    request = BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", PROFILES, 2)
    with pytest.raises(EngineError, match="does not accept the encoder: In node 0: UNSUPPORTED_NODE"):
        PythonBuilder(TENSORRT, Recorder(b"", parses=False), capability="9.0").build(request)
    lines: list[str] = []
    with pytest.raises(EngineError, match=r"could not build the engine: Error .*build --verbose. shows") as caught:
        PythonBuilder(TENSORRT, Recorder(None), capability="9.0", log=lines.append).build(request)
    assert r"Myelin (\x1b[1mwww" in caught.value.message
    assert len(caught.value.message) < 400
    assert "compileGraph" not in caught.value.message
    assert [line.split(":")[0] for line in lines] == ["  warning", "  internal error", "  error"]
    assert "compileGraph" in lines[1]
    recorder = Recorder(None)
    recorder.needs = 15112026496
    with pytest.raises(EngineError, match=r"needs a workspace of 14\.1 GiB .*smaller --max-batch"):
        PythonBuilder(TENSORRT, recorder, capability="9.0").build(request)
    with pytest.raises(EngineError, match=r"refuses the profile x 1x9x80 to 8x100x80, x_lens 1 to 8"):
        PythonBuilder(TENSORRT, Recorder(b"", profile=-1), capability="9.0").build(request)
    assert not request.plan.exists()


def test_there_is_no_tensorrt_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        EngineError,
        match=r"TensorRT cannot be loaded.*RTX does not run on .* 9\.0.*trtexec is not inst.*NVIDIA's container",
    ):
        find_builder("9.0")
    trtexec(tmp_path)
    found = find_builder("9.0")
    assert isinstance(found, TrtexecBuilder)
    assert found.version == "10.3.0"
