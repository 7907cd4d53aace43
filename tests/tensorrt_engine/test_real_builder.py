"""Our graphs in TensorRT-RTX's own parser and builder, and its Python API against the calls that are made here.

Neither needs a GPU. A plan cannot be loaded without one: names, types and shapes are read from the parsed network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import EngineError
from moulin.launch.tensorrt_libraries import ARCHITECTURES, TENSORRT_RTX
from moulin.tensorrt_engine import ready_plan
from moulin.tensorrt_engine.build import Preparation, build_plan, prepare
from moulin.tensorrt_engine.builders import BuildRequest, PythonBuilder, builder_ahead
from moulin.tensorrt_engine.plan_file import PLAN_PRECISIONS, Machine, PlanPrecision, built_for, check_plan, file_hash
from tests.bundles import BUNDLES, MORE_OFFLINE, MORE_STREAMING, OFFLINE, STREAMING
from tests.cli.command import moulin_here
from tests.engine import blank_bias

trt: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this Python or machine")


@pytest.mark.parametrize("precision", PLAN_PRECISIONS)
@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING, *MORE_OFFLINE, *MORE_STREAMING])
def test_the_parser_takes_every_family(name: str, precision: PlanPrecision, tmp_path: Path) -> None:
    parse(prepare(load_bundle(BUNDLES / name), precision=precision, max_batch=4), tmp_path)


@pytest.mark.parametrize("precision", PLAN_PRECISIONS)
@pytest.mark.parametrize("head", ["beside the transducer", "decoded", "alone"])
@pytest.mark.parametrize("bundle", [blank_bias.OFFLINE, blank_bias.STREAMING], ids=["offline", "streaming"])
def test_the_parser_takes_ctc_heads(bundle: Path, head: str, precision: PlanPrecision, tmp_path: Path) -> None:
    folder = bundle if head == "alone" else blank_bias.raised_export(bundle, 0.0, tmp_path / "export")
    spec = load_model(folder, precision="fp32", head="transducer" if head == "beside the transducer" else "ctc")
    prepared = prepare(spec, precision=precision, max_batch=4)
    outputs = {tensor.name for tensor in prepared.model.graph.output}
    assert ("blank_log_probs" in outputs) == ("encoder_out" in outputs) == (head == "beside the transducer")
    parse(prepared, tmp_path)


def parse(prepared: Preparation, tmp_path: Path) -> None:
    """Parse, and compare what the parser reads with the graph and the profiles."""
    onnx.save(prepared.model, tmp_path / "encoder.onnx")
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(tmp_path / "encoder.onnx"))
    assert parsed, [str(parser.get_error(number)) for number in range(parser.num_errors)]
    graph = prepared.model.graph
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    outputs = [network.get_output(number) for number in range(network.num_outputs)]
    for found, wanted in ((inputs, graph.input), (outputs, graph.output)):
        assert [tensor.name for tensor in found] == [tensor.name for tensor in wanted]
        for tensor, value in zip(found, wanted, strict=True):
            kind = {trt.float32: onnx.TensorProto.FLOAT, trt.int64: onnx.TensorProto.INT64}[tensor.dtype]
            assert kind == value.type.tensor_type.elem_type
    for profile in prepared.profiles:
        assert set(profile) == {tensor.name for tensor in inputs}
        for tensor in inputs:
            sizes = zip(tensor.shape, profile[tensor.name].largest, strict=True)
            assert all(size in (-1, largest) for size, largest in sizes)


def test_a_plan_is_built_ahead_for_an_architecture(tmp_path: Path) -> None:
    spec = load_bundle(BUNDLES / "lstm-streaming")
    builder = builder_ahead("8.6")
    plan = build_plan(spec, prepare(spec, max_batch=4), tmp_path, builder, None, "fp16")
    assert plan.stat().st_size > 10_000
    assert built_for(plan) == Machine("any", builder.version, "TensorRT-RTX", ("8.0", "8.6"))
    model = file_hash(spec.encoder.file)
    check_plan(plan, Machine("NVIDIA A100, 8.0", builder.version, "TensorRT-RTX"), model)
    check_plan(plan, Machine("NVIDIA RTX A6000, 8.6", builder.version, "TensorRT-RTX"), model)
    with pytest.raises(EngineError, match=r"capability 8.0, 8.6, and here is NVIDIA L4, 8.9 .*build --for ada"):
        check_plan(plan, Machine("NVIDIA L4, 8.9", builder.version, "TensorRT-RTX"), model)
    with pytest.raises(EngineError, match=r"with TensorRT-RTX \S+, and here is TensorRT 10.13.2"):
        check_plan(plan, Machine("NVIDIA A100, 8.0", "10.13.2"), model)


def test_a_plan_with_both_heads_is_built(tmp_path: Path) -> None:
    spec = load_model(blank_bias.raised_export(blank_bias.STREAMING, 0.0, tmp_path / "export"), precision="fp32")
    assert isinstance(spec, OnnxModelSpec)
    plan = build_plan(spec, prepare(spec, max_batch=2), tmp_path, builder_ahead("8.9"), None, "fp16")
    assert plan.stat().st_size > 1_000_000


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_streaming_conformer_is_built_in_half_precision(precision: PlanPrecision, tmp_path: Path) -> None:
    """The builder fails inside itself where all of its attention is in half precision."""
    spec = load_bundle(BUNDLES / "conformer-streaming")
    plan = build_plan(
        spec, prepare(spec, precision=precision, max_batch=4), tmp_path, builder_ahead("8.9"), None, precision
    )
    assert plan.stat().st_size > 1_000_000


def test_the_service_finds_what_was_built_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card of the architecture, which is a name here: the engine is found, and only then compared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = Path(moulin_here("trt", "build", BUNDLES / "lstm-streaming", "--for", "ada").expect(0).out.strip())
    here = ready_plan._Here(TENSORRT_RTX, trt, torch.device("cpu"))
    monkeypatch.setattr(ready_plan, "_libraries_on", lambda *_: here)
    monkeypatch.setattr(ready_plan, "gpu_name", lambda _gpu: "NVIDIA L4, 8.9")
    compared: list[Path] = []

    def compare(plan: Path) -> float:
        compared.append(plan)
        return 0.001

    monkeypatch.setattr(ready_plan, "drift_check", lambda *_, **__: compare)
    monkeypatch.setattr(PythonBuilder, "build", lambda *_: pytest.fail("built again"))
    spec = load_bundle(BUNDLES / "lstm-streaming")
    assert ready_plan.ready_plan(spec, device="cuda", speech=list) == built
    assert compared == [built]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_turing_multiplies_in_half_precision_alone(precision: PlanPrecision, tmp_path: Path) -> None:
    """It is said before the build; what the compiler says stands behind it."""
    spec = load_bundle(BUNDLES / "lstm-streaming")
    prepared, builder = prepare(spec, precision=precision, max_batch=4), builder_ahead("7.5")
    with pytest.raises(EngineError, match=f"capability 7.5 in fp16 alone, got {precision}"):
        build_plan(spec, prepared, tmp_path, builder, None, precision)
    onnx.save(prepared.model, tmp_path / "a.onnx")
    with pytest.raises(EngineError, match=r"FP32 GEMM is not supported|HW-specific datatypes: b16"):
        builder.build(BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", prepared.profiles, 1))


def test_what_the_parser_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing of the kind")
    request = BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", [], 1)
    with pytest.raises(EngineError, match="TensorRT-RTX does not accept the encoder"):
        builder_ahead("8.9").build(request)


def test_what_the_builder_refuses_is_said(tmp_path: Path) -> None:
    prepared = prepare(load_bundle(BUNDLES / "lstm-streaming"), precision="fp16", max_batch=4)
    onnx.save(prepared.model, tmp_path / "a.onnx")
    log: list[str] = []
    with pytest.raises(EngineError, match=r"could not build the engine: .*no optimization profile has been defined"):
        builder_ahead("8.9", log=log.append).build(BuildRequest(tmp_path / "a.onnx", tmp_path / "a.plan", [], 1))
    assert any(line.startswith("  error: ") and "no optimization profile" in line for line in log)
    assert any(line.startswith("  info: ") for line in log)


def test_every_architecture_is_one_that_the_builder_knows() -> None:
    known = {name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    assert {f"SM{c.replace('.', '')}" for found in ARCHITECTURES.values() for c in found} == known
    assert not TENSORRT_RTX.serves("9.0")


CALLS = {
    "Runtime.deserialize_cuda_engine": "serialized_engine: typing_extensions.Buffer",
    "Runtime.get_engine_validity": "buffer: typing_extensions.Buffer) -> tuple",
    "ICudaEngine.create_runtime_config": "-> tensorrt_rtx_bindings.tensorrt_rtx.IRuntimeConfig",
    "ICudaEngine.create_execution_context": "runtime_config: tensorrt_rtx_bindings.tensorrt_rtx.IRuntimeConfig",
    "ICudaEngine.get_tensor_name": "index: typing.SupportsInt) -> str",
    "ICudaEngine.get_tensor_mode": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.TensorIOMode",
    "ICudaEngine.get_tensor_dtype": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.DataType",
    "ICudaEngine.get_tensor_profile_shape": "name: str, profile_index: typing.SupportsInt) -> list",
    "IExecutionContext.set_optimization_profile_async": "profile_index: typing.SupportsInt, stream_handle: typing.Supp",
    "IExecutionContext.set_input_shape": "name: str, shape: tuple) -> bool",
    "IExecutionContext.set_tensor_address": "name: str, memory: typing.SupportsInt) -> bool",
    "IExecutionContext.get_tensor_shape": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.Dims",
    "IExecutionContext.execute_async_v3": "stream_handle: typing.SupportsInt) -> bool",
    "IRuntimeConfig.create_runtime_cache": "-> nvinfer1::IRuntimeCache",
    "IRuntimeConfig.set_runtime_cache": "-> bool",
    "IRuntimeCache.serialize": "-> tensorrt_rtx_bindings.tensorrt_rtx.IHostMemory",
    "IRuntimeCache.deserialize": "blob: typing_extensions.Buffer) -> bool",
}


@pytest.mark.parametrize("call", CALLS)
def test_the_runtime_has_the_calls_that_are_made(call: str) -> None:
    """Nothing runs here without a GPU: the arguments and results are those of the wheel's own signatures."""
    kind, name = call.split(".")
    assert CALLS[call] in re.sub(r"\s+", " ", getattr(getattr(trt, kind), name).__doc__)


def test_the_runtime_has_the_names_that_are_used() -> None:
    assert {"num_io_tensors", "num_optimization_profiles"} <= set(dir(trt.ICudaEngine))
    assert trt.TensorIOMode.INPUT != trt.TensorIOMode.OUTPUT
    assert trt.nptype(trt.int64).__name__ == "int64"
    assert "INVALID" in trt.EngineValidity.__members__
    assert all(int(flag) > 0 for flag in trt.EngineInvalidityDiagnostics.__members__.values())
