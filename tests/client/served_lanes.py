"""A server of lanes in this process, without Triton."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from moulin.audio.waveform import as_floats
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import MoulinError, RequestRefused, ServerUnavailable
from moulin.triton_repo.lane_service import LaneRequest, LaneService
from moulin.triton_repo.streaming_service import StreamingService
from tests.triton_repo.fake_stream_runner import SPEC, Clock, FakeStreamRunner, heard_alone


class Result:
    """An `InferResult` of these outputs."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self._outputs = outputs

    def as_numpy(self, name: str) -> Any:
        return self._outputs.get(name)


class Served:
    """A server of lanes: `infer` is what `AsyncStreamBundle` calls."""

    def __init__(self, clock: Clock, runner: FakeStreamRunner) -> None:
        self.unary = StreamingService(
            StreamRecognizer(SPEC, HostStepper(SPEC, runner)), is_draining=lambda: self.draining, clock=clock
        )
        self.lanes = LaneService(
            self.unary.scheduler.recognizer,
            self.unary.scheduler,
            instance="a",
            check_load=self.unary.check_load,
            is_draining=lambda: self.draining,
            clock=clock,
        )
        self.draining = False
        self.dead = False
        """Whether no request is answered; what is under way fails too."""
        self.options: list[bytes] = []
        """Those of streams, in the order in which they came."""
        self.sizes: list[int] = []
        """Samples of each bundle."""
        self.swaps = 0
        """How many of the next bundles get the reply to another one."""
        self._held: tuple[Result, asyncio.Future[Result]] | None = None

    async def infer(self, *, inputs: list[Any], sequence_id: int, **flags: Any) -> Result:
        if self.dead:
            raise ServerUnavailable("No Triton server answers")
        tensors = {item.name(): _array(item) for item in inputs}
        self.options += tensors["STREAM_OPTIONS"].ravel().tolist() if "STREAM_OPTIONS" in tensors else []
        self.sizes.append(tensors["CHUNKS"].size if "CHUNKS" in tensors else 0)
        request = LaneRequest(sequence_id, flags["sequence_start"], flags["sequence_end"], tensors)
        try:
            result = Result(self.lanes.submit(request).tensors())
        except MoulinError as error:
            raise RequestRefused(error.message, hint=error.hint) from None
        return await self._swap(result) if self.swaps else result

    async def _swap(self, result: Result) -> Result:
        self.swaps -= 1
        if self._held is not None:
            (held, waiting), self._held = self._held, None
            waiting.set_result(result)
            return held
        waiting = asyncio.get_running_loop().create_future()
        self._held = result, waiting
        return await waiting

    def close(self) -> None:
        self.unary.scheduler.close()
        self.lanes.close()
        assert self.unary.num_open == 0
        self.unary.close()


def _array(item: Any) -> Any:
    raw, datatype = item._get_content(), item.datatype()
    flat = deserialize_bytes_tensor(raw) if datatype == "BYTES" else np.frombuffer(raw, triton_to_np_dtype(datatype))
    return flat.reshape(item.shape())


def alone(samples: Any) -> str:
    recognizer = StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1)))
    return heard_alone(recognizer, as_floats(samples))
