"""Up to the call of TensorRT, which no machine here has: a recorded fake stands for it."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.demo.files import DEMO_MODEL
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.onnx_rewrites.variants import in_brain_precision
from moulin.tensorrt_engine.build import build_plan, prepare
from moulin.tensorrt_engine.builders import (
    BuildRequest,
    PythonBuilder,
    TrtexecBuilder,
    find_builder,
    trtexec_arguments,
)
from moulin.tensorrt_engine.plan_file import Machine, PlanFacts, check_plan, facts_file, file_hash
from moulin.tensorrt_engine.profiles import Range
from tests.bundles import BUNDLES

CONFORMER = BUNDLES / "conformer-offline"
PROFILES = [
    {"x": Range((1, 9, 80), (4, 50, 80), (8, 100, 80)), "x_lens": Range((1,), (4,), (8,))},
    {"x": Range((1, 100, 80), (4, 200, 80), (8, 400, 80)), "x_lens": Range((1,), (4,), (8,))},
]


def trtexec(folder: Path, *, banner: str = "&&&& RUNNING TensorRT.trtexec [TensorRT v100300]", ends: str = "") -> Path:
    """A trtexec that writes down what it was told, and a plan with a copy of the graph."""
    file = folder / "trtexec"
    file.write_text(
        f"""#!/bin/sh
echo '{banner} # trtexec'
[ "$1" = --help ] && exit 0
for argument in "$@"; do
  echo "$argument" >> {folder}/told
  case "$argument" in --onnx=*) onnx="${{argument#*=}}";; --saveEngine=*) plan="${{argument#*=}}";; esac
done
{ends or 'cp "$onnx" "$plan"'}
"""
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


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
    with pytest.raises(EngineError, match="exit status 0"):  # and no plan
        TrtexecBuilder(trtexec(tmp_path, ends="true")).build(request)
    with pytest.raises(EngineError, match="--help to print its version, got"):
        TrtexecBuilder(trtexec(tmp_path, banner="hello"))
    assert TrtexecBuilder(trtexec(tmp_path, banner="[TensorRT v8601]")).version == "8.6.1"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    builder = TrtexecBuilder(trtexec(tmp_path, ends="exit 1"))
    with pytest.raises(EngineError):
        build_plan(spec, prepare(spec), tmp_path / "engines", builder, "g", "fp16")
    assert not list((tmp_path / "engines").iterdir())


class Logger:
    WARNING = 1

    def __init__(self, level: int) -> None:
        assert level == self.WARNING


class Recorder:
    """Stands for TensorRT's module: notes every call with its arguments."""

    __version__ = "10.13.2.6"
    Logger = Logger
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    def __init__(self, plan: bytes | None, *, parses: bool = True, strongly_typed: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**({"STRONGLY_TYPED": 1} if strongly_typed else {}))
        self._plan, self._parses = plan, parses

    def Builder(self, _logger: object) -> Any:
        def profile() -> Any:
            shapes: dict[str, Any] = {}
            return SimpleNamespace(shapes=shapes, set_shape=lambda name, *three: shapes.__setitem__(name, three))

        config = SimpleNamespace(
            set_memory_pool_limit=lambda *call: self.calls.append(("limit", *call)),
            add_optimization_profile=lambda profile: self.calls.append(("profile", profile.shapes)),
        )
        return SimpleNamespace(
            create_network=lambda flags: self.calls.append(("network", flags)),
            create_builder_config=lambda: config,
            create_optimization_profile=profile,
            build_serialized_network=lambda *_: self._plan,
        )

    def OnnxParser(self, _network: object, _logger: object) -> Any:
        def parse(file: str) -> bool:
            self.calls.append(("parse", file))
            return self._parses

        return SimpleNamespace(
            parse_from_file=parse, num_errors=1, get_error=lambda number: f"In node {number}: UNSUPPORTED_NODE"
        )


def test_a_plan_by_the_python_api(tmp_path: Path) -> None:
    recorder = Recorder(b"plan")
    builder = PythonBuilder(recorder)
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
    PythonBuilder(later).build(request)
    assert later.calls[0] == ("network", 0)


def test_what_goes_wrong_in_the_python_api(tmp_path: Path) -> None:
    request = BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", PROFILES, 2)
    with pytest.raises(EngineError, match="does not accept the encoder: In node 0: UNSUPPORTED_NODE"):
        PythonBuilder(Recorder(b"", parses=False)).build(request)
    with pytest.raises(EngineError, match=r"could not build the engine.*lower --workspace-gib"):
        PythonBuilder(Recorder(None)).build(request)
    assert not request.plan.exists()


def test_there_is_no_tensorrt_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"neither the Python package tensorrt nor trtexec .*NVIDIA's container"):
        find_builder()
    trtexec(tmp_path)
    found = find_builder()
    assert isinstance(found, TrtexecBuilder)
    assert found.version == "10.3.0"


def test_what_no_engine_is_built_from() -> None:
    with pytest.raises(OptionsError, match="is a checkpoint"):
        prepare(load_model(CONFORMER / "epoch-1.pt"))
    with pytest.raises(OptionsError, match=r"built from fp32 files, and .* is int8"):
        prepare(load_bundle(DEMO_MODEL))


def test_a_plan_of_another_machine_is_refused(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    builder = TrtexecBuilder(trtexec(tmp_path))
    plan = build_plan(spec, prepare(spec), tmp_path / "e", builder, "NVIDIA A100, 8.0", "fp16")
    model = file_hash(spec.encoder.file)
    check_plan(plan, Machine("NVIDIA A100, 8.0", "10.3.0"), model)
    with pytest.raises(EngineError, match=r"built for the GPU NVIDIA A100, 8.0, and here is NVIDIA H200, 9.0 \(hint"):
        check_plan(plan, Machine("NVIDIA H200, 9.0", "10.3.0"), model)
    with pytest.raises(EngineError, match=r"with TensorRT 10.3.0, and here is 10.9.0 .*run `moulin trt build` here"):
        check_plan(plan, Machine("NVIDIA A100, 8.0", "10.9.0"), model)
    facts_file(plan).write_text("{}")
    with pytest.raises(BundleError, match="cannot be read"):
        check_plan(plan, Machine("NVIDIA A100, 8.0", "10.3.0"), model)
    with pytest.raises(BundleError, match="There is no engine at"):
        check_plan(tmp_path / "none.plan", Machine("", ""), model)


def test_bf16_has_the_range_of_fp32(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    model = prepare(spec, precision="bf16", max_seconds=3).model
    onnx.save(model, tmp_path / "bf16.onnx")
    onnx.checker.check_model(tmp_path / "bf16.onnx")
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in types
    assert onnx.TensorProto.FLOAT16 not in types
    casts = {attribute.i for node in model.graph.node if node.op_type == "Cast" for attribute in node.attribute}
    assert onnx.TensorProto.FLOAT16 not in casts
    assert [tensor.type.tensor_type.elem_type for tensor in model.graph.input][:1] == [onnx.TensorProto.FLOAT]
    huge = onnx.helper.make_tensor("huge", onnx.TensorProto.FLOAT, [1], [3e30])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["a", "huge"], ["b"])],
        "g",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])],
        [huge],
    )
    converted = in_brain_precision(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]))
    (weight,) = converted.graph.initializer
    assert onnx.numpy_helper.to_array(weight).astype(float)[0] == pytest.approx(3e30, rel=0.01)


def test_every_fact_makes_another_key() -> None:
    facts = PlanFacts(Machine("gpu", "10.3.0"), "fp16", "abc", PROFILES, 4.0)
    changes: list[dict[str, Any]] = [
        {"machine": Machine("other", "10.3.0")},
        {"machine": Machine("gpu", "10.4.0")},
        {"precision": "fp32"},
        {"model": "abd"},
        {"profiles": PROFILES[:1]},
        {"workspace_gib": 2.0},
    ]
    keys = {dataclasses.replace(facts, **change).key for change in changes}
    assert len(keys | {facts.key}) == 1 + len(changes)
    assert facts.key == dataclasses.replace(facts).key
