"""tritonclient's part of a server that streams: what it hears is how many samples there were."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferResponse, ModelMetadataResponse
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor

from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word

_DTYPES: dict[str, Any] = {"INT16": np.int16, "FP32": "<f4", "INT32": "<i4", "UINT64": "<u8"}


class Reply:
    """An `InferResult` with these outputs, each one BYTES [1]."""

    def __init__(self, **outputs: Any) -> None:
        self.id = ""
        self._outputs = {name: np.array([json.dumps(value).encode()], np.object_) for name, value in outputs.items()}

    def as_numpy(self, name: str) -> Any:
        return self._outputs.get(name)

    def get_response(self) -> ModelInferResponse:
        return ModelInferResponse(id=self.id)


def tensors(inputs: list[Any]) -> dict[str, Any]:
    """What a request's inputs hold, as arrays."""
    arrays = {}
    for item in inputs:
        raw, datatype = item._get_content(), item.datatype()
        flat = deserialize_bytes_tensor(raw) if datatype == "BYTES" else np.frombuffer(raw, _DTYPES[datatype])
        arrays[item.name()] = flat.reshape(item.shape())
    return arrays


def samples(inputs: list[Any]) -> list[float]:
    """The audio of a request of one row."""
    sent = tensors(inputs)
    return list(sent["WAV"][0, : sent["WAV_LENS"].item()].tolist())


def heard(count: int, *, is_final: bool = False) -> StreamUpdate:
    """The update after `count` samples."""
    words = (Word(str(count), 0.0, 0.04, 1.0),)
    return StreamUpdate((Segment(0, str(count), words, is_final),), is_final, is_final, count / 16000)


@dataclass
class FakeTriton:
    """The methods of `InferenceServerClient` that a client uses."""

    models: dict[str, str] = field(default_factory=lambda: {"transducer": "streaming"})
    """Name to "streaming" or "offline"."""
    slots: int = 2
    open: dict[int, int] = field(default_factory=dict)
    """Sequence id to the samples so far."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    inputs: tuple[str, ...] = ("WAV",)
    """By default those of a server that takes no 16-bit samples and no numbers of requests."""
    fail: Exception | None = None
    """What the next request raises instead of an answer."""

    def get_model_metadata(self, name: str, **_: Any) -> Any:  # noqa: ARG002
        return ModelMetadataResponse(inputs=[ModelMetadataResponse.TensorMetadata(name=name) for name in self.inputs])

    def is_model_ready(self, name: str, **_: Any) -> bool:
        if self.fail is not None:
            raise self.fail
        return name in self.models

    def infer(self, name: str, **arguments: Any) -> Reply:
        self.asked.append({"model": name, **arguments})
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        if self.models[name] == "offline":
            reply = Reply(RESULT={"text": "", "words": [], "duration_sec": 0.0})
        else:
            reply = self._stream(**arguments)
        reply.id = arguments["request_id"]
        return reply

    def close(self) -> None: ...

    def _stream(
        self,
        *,
        inputs: list[Any],
        outputs: list[Any],
        sequence_id: int,
        sequence_start: bool,
        sequence_end: bool,
        **_: Any,
    ) -> Reply:
        if sequence_start:
            if len(self.open) >= self.slots:
                message = f"All {self.slots} streams are in use (hint: raise --max-streams)"
                raise InferenceServerException(message, "StatusCode.UNAVAILABLE")
            self.open[sequence_id] = 0
        if sequence_id not in self.open:
            raise InferenceServerException("No such stream", "StatusCode.INVALID_ARGUMENT")
        self.open[sequence_id] += len(samples(inputs))
        update = heard(self.open[sequence_id], is_final=sequence_end)
        if sequence_end:
            del self.open[sequence_id]
        return Reply(**{output.name(): update.to_dict() for output in outputs})


class AsyncFakeTriton(FakeTriton):
    """`FakeTriton` for asyncio."""

    async def is_model_ready(self, *arguments: Any, **options: Any) -> bool:  # type: ignore[override]
        return super().is_model_ready(*arguments, **options)

    async def get_model_metadata(self, *arguments: Any, **options: Any) -> Any:
        return super().get_model_metadata(*arguments, **options)

    async def infer(self, *arguments: Any, **options: Any) -> Reply:  # type: ignore[override]
        return super().infer(*arguments, **options)

    async def close(self) -> None: ...  # type: ignore[override]
