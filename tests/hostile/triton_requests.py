"""Seeded ModelInfer requests that are wrong in ways which no client library lets through."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

Request = Any
"""A `service_pb2.ModelInferRequest`."""

_SPEECH = np.random.default_rng(3).normal(0, 0.05, (1, 4000)).astype(np.float32)
_DIMENSIONS = (0, 1, -1, 2, 3999, 4001, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
_TYPES = (
    "FP32",
    "fp32",
    "",
    "FP16",
    "BF16",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT64",
    "BOOL",
    "BYTES",
    "FP99",
    "x" * 5000,
)
_NAMES = (
    "",
    "WAV",
    "wav",
    "WAV_LENS",
    "OPTIONS",
    "CHUNK_INDEX",
    "WAV_INT16",
    "RESULT",
    "\0",
    "../../x",
    "é",
    "n" * 50_000,
)
_PARAMETERS = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers",
    "triton_enable_empty_final_response",
    "triton_", "binary_data_output", "classification", "shared_memory_region", "shared_memory_offset",
    "shared_memory_byte_size", "max_tokens", "", "p" * 10_000,
)  # fmt: skip


def good(model: str) -> Request:
    """A request that is answered; of a streaming model a stream of one."""
    request = service_pb2.ModelInferRequest(model_name=model)
    _add(request, "WAV", "FP32", (1, 4000), _SPEECH.tobytes())
    _add(request, "WAV_LENS", "INT32", (1, 1), np.array([[4000]], np.int32).tobytes())
    return request


def hostile(model: str, seed: int, *, streaming: bool) -> Request:
    """A good request after one to three changes."""
    chance = random.Random(seed)
    request = good(model)
    if streaming:
        request.parameters["sequence_id"].int64_param = 1 + seed % 5
        request.parameters["sequence_start"].bool_param = chance.random() < 0.7
        request.parameters["sequence_end"].bool_param = chance.random() < 0.7
    for _ in range(chance.choice((1, 1, 2, 3))):
        chance.choice(CHANGES)(request, chance)
    return request


def _add(request: Request, name: str, kind: str, shape: tuple[int, ...], content: bytes) -> None:
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = name, kind
    tensor.shape.extend(shape)
    request.raw_input_contents.append(content)


def _one(request: Request, chance: random.Random) -> Any:
    return chance.choice(request.inputs) if request.inputs else request.inputs.add()


def _content_of_another_length(request: Request, chance: random.Random) -> None:
    at = chance.randrange(len(request.raw_input_contents) or 1)
    if request.raw_input_contents:
        content = request.raw_input_contents[at]
        request.raw_input_contents[at] = chance.choice((b"", content[:-1], content[:5], content + b"\0", content * 3))


def _contents_of_another_number(request: Request, chance: random.Random) -> None:
    if chance.random() < 0.5 and request.raw_input_contents:
        del request.raw_input_contents[chance.randrange(len(request.raw_input_contents)) :]
    else:
        request.raw_input_contents.append(bytes(chance.choice((0, 4, 16_000))))


def _typed_contents(request: Request, chance: random.Random) -> None:
    contents = _one(request, chance).contents
    chance.choice(
        (
            lambda: contents.fp32_contents.extend([0.1] * chance.choice((1, 4000))),
            lambda: contents.int_contents.extend([4000] * chance.choice((1, 2))),
            lambda: contents.bytes_contents.append(b"x" * chance.choice((0, 100_000))),
            lambda: contents.uint64_contents.append(2**64 - 1),
            lambda: contents.fp64_contents.append(float("nan")),
        )
    )()
    if chance.random() < 0.5:
        del request.raw_input_contents[:]


def _another_shape(request: Request, chance: random.Random) -> None:
    tensor = _one(request, chance)
    del tensor.shape[:]
    tensor.shape.extend(chance.choice(_DIMENSIONS) for _ in range(chance.choice((0, 1, 2, 2, 2, 3, 40))))


def _another_type(request: Request, chance: random.Random) -> None:
    _one(request, chance).datatype = chance.choice(_TYPES)


def _another_name(request: Request, chance: random.Random) -> None:
    _one(request, chance).name = chance.choice(_NAMES)


def _damaged_text(request: Request, chance: random.Random) -> None:
    """OPTIONS whose strings are shorter or longer than they say."""
    content = chance.choice(
        (
            b"",
            b"\2\0\0",
            b"\2\0\0\0{",
            b"\2\0\0\0{}{}",
            b"\xff\xff\xff\xff{}",
            b"\xff\xff\xff\x7f{}",
            b"\2\0\0\0{}\2\0\0\0{}",
            b"\0\0\0\0",
            b"\2\0\0\0\xff\xfe",
        )
    )
    _add(request, "OPTIONS", "BYTES", chance.choice(((1, 1), (1, 2), (0, 0), (1,))), content)


def _twice(request: Request, chance: random.Random) -> None:
    request.inputs.add().CopyFrom(_one(request, chance))
    if request.raw_input_contents:
        request.raw_input_contents.append(request.raw_input_contents[0])


def _parameter(request: Request, chance: random.Random) -> None:
    holders = [request, *request.inputs, *request.outputs]
    parameter = chance.choice(holders).parameters[chance.choice(_PARAMETERS)]
    chance.choice(
        (
            lambda: setattr(parameter, "int64_param", chance.choice((0, -1, 1, 7, 2**63 - 1, -(2**63)))),
            lambda: setattr(parameter, "uint64_param", chance.choice((0, 2**63, 2**64 - 1))),
            lambda: setattr(parameter, "bool_param", chance.random() < 0.5),
            lambda: setattr(parameter, "string_param", chance.choice(("", "1", "x" * 129, "x" * 20_000, "\0", "é"))),
            lambda: setattr(parameter, "double_param", chance.choice((0.5, float("nan"), 1e308))),
        )
    )()


def _sequence_id(request: Request, chance: random.Random) -> None:
    parameter = request.parameters["sequence_id"]
    if chance.random() < 0.5:
        parameter.uint64_param = chance.choice((0, 1, 2**63 - 1, 2**63, 2**64 - 1))
    else:
        parameter.string_param = chance.choice(("", "0", "a", "\0", "é" * 60, "x" * 128, "x" * 129, "x" * 100_000))
    for name in ("sequence_start", "sequence_end"):
        request.parameters[name].bool_param = chance.random() < 0.8


def _outputs(request: Request, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 100))):
        request.outputs.add().name = chance.choice(("TRANSCRIPTS", "RESULT", *_NAMES))


def _shared_memory(request: Request, chance: random.Random) -> None:
    holder = _one(request, chance) if chance.random() < 0.5 else request.outputs.add(name="TRANSCRIPTS")
    holder.parameters["shared_memory_region"].string_param = chance.choice(("nothing", "", "/etc/passwd", "r" * 5000))
    holder.parameters["shared_memory_byte_size"].int64_param = chance.choice((0, -1, 4, 16_000, 2**63 - 1))
    holder.parameters["shared_memory_offset"].int64_param = chance.choice((0, -1, 2**63 - 1))


def _another_model(request: Request, chance: random.Random) -> None:
    if chance.random() < 0.5:
        request.model_version = chance.choice(("1", "-1", "0", "2", "99999999999999999999", "x", "1" * 5000))
    else:
        request.model_name = chance.choice(("", "..", "../x", "\0", "m" * 50_000))


def _id(request: Request, chance: random.Random) -> None:
    request.id = chance.choice(("", "\0", "\n", "é", "i" * 100_000))


CHANGES: tuple[Callable[[Request, random.Random], None], ...] = (
    _content_of_another_length,
    _contents_of_another_number,
    _typed_contents,
    _another_shape,
    _another_type,
    _another_name,
    _damaged_text,
    _twice,
    _parameter,
    _sequence_id,
    _outputs,
    _shared_memory,
    _another_model,
    _id,
)
