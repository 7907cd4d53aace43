"""The parts of config.pbtxt that all models share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.file_names import languages_of
from moulin.bundle.spec import ModelSpec
from moulin.models.engine_choice import EngineChoice
from moulin.triton_repo import contract

PLAN_NAME = "encoder.plan"
"""The file of a TensorRT engine in a version's folder; its facts lie beside it (`tensorrt_engine.plan_file`)."""


def new_config(name: str, max_batch_size: int) -> Any:
    """The `inference.ModelConfig` message of a python model with the tensors of the contract."""
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=max_batch_size)
    add_contract(config)
    # Ragged: requests of different lengths come in one call, and no client has to pad for others.
    config.input[0].allow_ragged_batch = True
    return config


def add_contract(config: Any) -> None:
    """Add the tensors that clients send and get."""
    config.input.add(name=contract.WAV, data_type=pb.TYPE_FP32, dims=[-1])
    config.input.add(name=contract.WAV_LENS, data_type=pb.TYPE_INT32, dims=[1])
    config.input.add(name=contract.OPTIONS, data_type=pb.TYPE_STRING, dims=[1], optional=True)
    config.output.add(name=contract.TRANSCRIPTS, data_type=pb.TYPE_STRING, dims=[1])
    config.output.add(name=contract.RESULT, data_type=pb.TYPE_STRING, dims=[1])


def add_int16(config: Any) -> None:
    """Add WAV_INT16 as an alternative to WAV: half as many bytes for clients with 16-bit samples."""
    config.input[0].optional = True
    config.input.add(
        name=contract.WAV_INT16, data_type=pb.TYPE_INT16, dims=[-1], optional=True, allow_ragged_batch=True
    )


def add_chunk_index(config: Any) -> None:
    """Add CHUNK_INDEX, by which a streaming model notices requests that are lost, repeated or in another order."""
    config.input.add(name=contract.CHUNK_INDEX, data_type=pb.TYPE_UINT64, dims=[1], optional=True)


def add_lanes(config: Any) -> None:
    """Add the tensors of lanes. WAV_LENS becomes optional: a bundle has none of the usual inputs."""
    next(tensor for tensor in config.input if tensor.name == contract.WAV_LENS).optional = True
    for name, kind in _LANE_INPUTS.items():
        size = 1 if name == contract.BUNDLE else -1
        config.input.add(name=name, data_type=kind, dims=[size], optional=True, allow_ragged_batch=True)
    for name, kind in _LANE_OUTPUTS.items():
        config.output.add(name=name, data_type=kind, dims=[-1])


_LANE_INPUTS = {
    contract.BUNDLE: pb.TYPE_UINT64,
    contract.STREAMS: pb.TYPE_UINT64,
    contract.EVENTS: pb.TYPE_UINT8,
    contract.STREAM_OPTIONS: pb.TYPE_STRING,
    contract.CHUNK_LENS: pb.TYPE_INT32,
    contract.CHUNKS: pb.TYPE_INT16,
}
_LANE_OUTPUTS = {
    contract.UPDATE_STREAMS: pb.TYPE_UINT64,
    contract.UPDATE_KINDS: pb.TYPE_UINT8,
    contract.UPDATE_LENS: pb.TYPE_INT32,
    contract.UPDATES: pb.TYPE_UINT8,
    contract.DECODED_STREAMS: pb.TYPE_UINT64,
    contract.DECODED: pb.TYPE_UINT64,
    contract.LANE: pb.TYPE_UINT8,
}


def add_instances(config: Any, count: int, gpu: int | None, gpus: Sequence[int] = ()) -> None:
    """Add `count` processes on the CPU, or bound to one GPU, or for each of several `gpus`."""
    group = config.instance_group.add(count=count, kind=pb.ModelInstanceGroup.KIND_CPU)
    if gpu is not None:
        group.kind = pb.ModelInstanceGroup.KIND_GPU
        group.gpus.extend(gpus or [gpu])


def with_facts(
    config: Any,
    spec: ModelSpec,
    *,
    hotwords: bool = False,
    alternatives: bool = False,
    engine: EngineChoice | None = None,
) -> Any:
    """`config`, which tells clients what model it is, whether it uses hotwords and gives alternatives, and what runs
    it: `engine`, settled, where it is one of ours."""
    facts = {"bundle": spec.name, "created": f"{spec.file.stat().st_mtime:.0f}"}
    if languages := languages_of(spec.name):
        facts["languages"] = " ".join(languages)
    if engine is not None:
        facts |= {"engine": str(engine.kind), "precision": str(engine.precision)}
    abilities = {"hotwords": hotwords, "alternatives": alternatives}
    add_parameters(config, {name: "true" if can else "false" for name, can in abilities.items()} | facts)
    return config


def add_parameters(config: Any, parameters: Mapping[str, str]) -> None:
    """Add facts for clients and about an ensemble's networks; see `service_parameter` for the operator's options."""
    for name, value in parameters.items():
        config.parameters[name].string_value = value
