"""Building of a TensorRT plan from a model's ONNX encoder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import onnx

from moulin.bundle.spec import ExportedSpec, ModelSpec
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.errors import EngineError, OptionsError
from moulin.launch.tensorrt_libraries import ARCHITECTURES, FP16_ALONE, TENSORRT_RTX
from moulin.onnx_rewrites.ctc_head import keep_searched_outputs
from moulin.onnx_rewrites.mask_length import tell_mask_length_by_shape
from moulin.onnx_rewrites.packed_states import pack_states
from moulin.tensorrt_engine.builders import Builder, BuildRequest
from moulin.tensorrt_engine.operators import refusals
from moulin.tensorrt_engine.plan_file import (
    Machine,
    PlanFacts,
    PlanPrecision,
    built_within,
    file_hash,
    is_checked,
    write_facts,
)
from moulin.tensorrt_engine.profiles import Profile, profiles
from moulin.tensorrt_engine.sanitise import sanitise

MAX_BATCH = 64
"""The most utterances or streams in a batch of an engine, where nothing else is asked for."""


@dataclass(frozen=True)
class Preparation:
    """The inputs of a TensorRT build."""

    model: onnx.ModelProto
    profiles: list[Profile]


def prepare(
    spec: ModelSpec,
    *,
    precision: PlanPrecision = "fp16",
    max_batch: int = MAX_BATCH,
    max_seconds: float = MAX_AUDIO_SEC,
) -> Preparation:
    """The encoder of `spec` in a form that TensorRT accepts, with the outputs that the search reads
    (`keep_searched_outputs`), a streaming one with its states packed, and its profiles.

    Raises OptionsError for a checkpoint or impossible limits, and EngineError where the graph has operators that
    TensorRT does not accept.
    """
    if not isinstance(spec, ExportedSpec):
        raise OptionsError(
            f"An engine is built from ONNX files, and {spec.file} is a checkpoint",
            hint="`moulin export` writes ONNX files from it",
        )
    if spec.precision != "fp32":
        raise OptionsError(
            f"An engine is built from fp32 files, and {spec.file.name} is {spec.precision}",
            hint="name a folder that has fp32 files too; the engine's precision is --precision",
        )
    loaded = onnx.load(spec.encoder.file)
    keep_searched_outputs(loaded, spec)
    tell_mask_length_by_shape(loaded)
    model = sanitise(pack_states(loaded, spec.streaming) if spec.streaming else loaded)
    if found := refusals(model):
        raise EngineError(
            f"TensorRT does not accept {spec.encoder.file}: it has {', '.join(map(str, found))}",
            hint="export the checkpoint with `moulin export`, whose files have none of these",
        )
    min_frames = 1
    if spec.streaming is None:
        encoder = OnnxRuntimeEncoder(
            spec.encoder,
            feature_dim=spec.feature_dim,
            precision=spec.precision,
            threads=1,
            rewrite=False,
            out=spec.out,
        )
        min_frames = encoder.min_frames
    made_for = profiles(spec, max_batch=max_batch, min_frames=min_frames, max_seconds=max_seconds)
    return Preparation(_in_precision(model, precision, single=_in_single_precision(spec)), made_for)


def build_plan(
    spec: ExportedSpec,
    prepared: Preparation,
    to: Path,
    builder: Builder,
    gpu: str | None,
    precision: PlanPrecision,
    *,
    workspace_gib: float | None = None,
    check: Callable[[Path], float] | None = None,
) -> Path:
    """Build the engine into the folder `to`, unless it is there already; returns its file. Raises EngineError.

    `gpu` is the GPU's name by `this_gpu`; None for a builder that needs no GPU. The file's name identifies GPU or
    compute capabilities, library and version, precision, profiles, outputs and model. An engine built within another
    `workspace_gib` than is asked for is built again; None takes it whatever its workspace was. `check` is called for
    every engine that is not checked yet, and returns its drift or raises EngineError, upon which the engine is deleted.
    """
    if precision != "fp16" and FP16_ALONE & set(builder.capabilities):
        raise EngineError(
            f"{builder.library} builds for compute capability {', '.join(builder.capabilities)} in fp16 alone, "
            f"got {precision}",
            hint="leave out --precision, or serve the model with --engine onnxruntime",
        )
    facts = PlanFacts(
        Machine("any" if builder.capabilities else str(gpu), builder.version, builder.library, builder.capabilities),
        precision,
        file_hash(spec.encoder.file, *spec.encoder.external_files),
        prepared.profiles,
        [output.name for output in prepared.model.graph.output],
        builder.usual_workspace_gib if workspace_gib is None else workspace_gib,
    )
    to.mkdir(parents=True, exist_ok=True)
    plan = to / f"encoder-{precision}-{facts.key}.plan"
    if plan.is_file() and workspace_gib in (None, built_within(plan)):
        if check is not None and not is_checked(plan):
            write_facts(plan, facts, check(plan))
        return plan
    with tempfile.TemporaryDirectory(dir=to, prefix=".new-") as folder:
        source, new = Path(folder) / "encoder.onnx", Path(folder) / "encoder.plan"
        onnx.save(prepared.model, source, save_as_external_data=prepared.model.ByteSize() > 2**30)
        builder.build(BuildRequest(source, new, prepared.profiles, facts.workspace_gib))
        write_facts(plan, facts, None if check is None else check(new))
        new.rename(plan)
    return plan


_AHEAD = (
    f"--for {'|'.join(ARCHITECTURES)} builds for that architecture without a GPU, with TensorRT-RTX "
    f"({TENSORRT_RTX.hint}); --dry-run shows what would be built"
)


def this_gpu(index: int = 0) -> str:
    """The GPU's name and compute capability from nvidia-smi. Raises EngineError where there is no such GPU."""
    query = ["nvidia-smi", f"--id={index}", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    if shutil.which("nvidia-smi") is None:
        raise EngineError("Building an engine needs an NVIDIA GPU, and nvidia-smi is not installed", hint=_AHEAD)
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise EngineError(f"nvidia-smi finds no GPU {index}: {(done.stdout + done.stderr).strip()}", hint=_AHEAD)
    return done.stdout.strip()


def _in_single_precision(spec: ExportedSpec) -> Collection[str]:
    """Operators that an engine in half precision computes in single precision.

    TensorRT-RTX 1.7 merges a streaming Conformer's attention into one kernel, and fails inside itself (Myelin,
    tactics_tiled_layout.cpp) where softmax is in half precision.
    """
    return {"Softmax"} if spec.streaming and spec.family == "conformer" else ()


def _in_precision(model: onnx.ModelProto, precision: PlanPrecision, *, single: Collection[str]) -> onnx.ModelProto:
    """`model` in the engine's precision, with inputs, outputs and operators called `single` unchanged."""
    if precision == "fp32":
        return model
    from moulin.onnx_rewrites.variants import in_brain_precision, in_half_precision

    return (in_half_precision if precision == "fp16" else in_brain_precision)(model, single=single)
