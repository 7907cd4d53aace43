"""Bundles of many streams that are wrong in every way: a refusal or news of the rows, and neighbours right."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

from moulin.audio.waveform import as_floats, in_16_bits
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import StreamError
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.triton_repo.contract import Event, Kind
from moulin.triton_repo.lane_service import LaneRequest, LaneService
from moulin.triton_repo.streaming_service import StreamingService
from tests.triton_repo.fake_stream_runner import SPEC, FakeStreamRunner, heard_alone

from .conftest import Seeds
from .mutations import mutated_json

_AUDIO = in_16_bits(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32))
_OPTIONS = {"method": "modified_beam_search", "beam": 4, "endpoint": True, "rule2_min_trailing_silence_sec": 0.5}
_EXTREMES = (0, 1, 2, 255, 2**31 - 1, -(2**31), 2**63, 2**64 - 1)
_SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1, 0), (2, 3), (1, 1, 1), (7,))


def _good(chance: random.Random, number: int) -> dict[str, Any]:
    """A bundle of a few streams with events of any kind."""
    count = chance.randrange(6)
    streams = chance.sample(range(9), count)
    events = [chance.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 8, 16, 17, 31)) for _ in streams]
    lengths = [chance.choice((0, 1, 100, 640, 2000)) for _ in streams]
    texts = [
        mutated_json(_OPTIONS, chance.getrandbits(32)).encode("utf-8", "surrogatepass")
        for event in events
        if event & Event.OPTIONS
    ]
    return {
        "BUNDLE": np.array([[number]], np.uint64),
        "STREAMS": np.array([streams], np.uint64),
        "EVENTS": np.array([events], np.uint8),
        "STREAM_OPTIONS": np.array([texts], np.object_),
        "CHUNK_LENS": np.array([lengths], np.int32),
        "CHUNKS": _AUDIO[None, : sum(lengths)],
    }


def _damaged(tensors: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One to three tensors left out, of another shape or length, or with extreme values."""
    tensors = dict(tensors)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        name = chance.choice(list(tensors) or ["BUNDLE"])
        tensor = tensors.get(name, np.zeros((1, 1), np.uint64)).copy()
        match chance.randrange(4):
            case 0:
                tensors.pop(name, None)
                continue
            case 1:
                tensors[name] = np.resize(tensor, chance.choice(_SHAPES))
            case 2:
                tensors[name] = np.concatenate([tensor, tensor], axis=-1) if tensor.ndim else tensor
            case _:
                if tensor.size:
                    extreme = chance.choice(_EXTREMES)
                    at = chance.randrange(tensor.size)
                    flat = tensor.reshape(-1)
                    flat[at] = (
                        b"\xff"
                        if name == "STREAM_OPTIONS"
                        else np.array([extreme % 2**64], np.uint64).astype(tensor.dtype)[0]
                    )
                    tensors[name] = flat.reshape(tensor.shape)
    return tensors


class _Good:
    """A lane with one stream, heard piece by piece."""

    def __init__(self, lanes: LaneService, name: str) -> None:
        self._lanes, self._name, self._number = lanes, name, 0
        self.live, self.closed = LiveTranscript(), False

    def send(self, *, end: bool = False) -> None:
        """The next tenth, or a question for news."""
        at = self._number
        piece = _AUDIO[1600 * at : 1600 * (at + 1)]
        row = {
            "STREAMS": np.array([[5]], np.uint64),
            "EVENTS": np.array([[{0: Event.START, 9: Event.END}.get(at, 0)]], np.uint8),
            "CHUNK_LENS": np.array([[len(piece)]], np.int32),
            "CHUNKS": piece[None],
        }
        self._number += 1
        tensors: dict[str, Any] = {"BUNDLE": np.array([[self._number]], np.uint64), **(row if at < 10 else {})}
        reply = self._lanes.submit(LaneRequest(self._name, at == 0, end, tensors))
        for update, kind in zip(reply.updates, reply.kinds, strict=True):
            assert kind <= Kind.CLOSED
            self.closed |= kind == Kind.CLOSED
            self.live.apply(StreamUpdate.from_dict(json.loads(update)))


def test_bundles(seeds: Seeds, survived: dict[str, int]) -> None:
    """A lane with any bundles beside one that is good, whose stream is heard as alone; again and again."""
    recognizer = StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(16)))
    unary = StreamingService(recognizer)
    lanes = LaneService(recognizer, unary.scheduler, check_load=unary.check_load)
    wanted = heard_alone(StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1))), as_floats(_AUDIO))
    every, messages = seeds(3), [""]
    for first in range(every.start, every.stop, 30):
        good, sent = _Good(lanes, f"good {first}"), 0
        for seed in range(first, min(first + 30, every.stop)):
            good.send()
            chance = random.Random(seed)
            tensors = _damaged(_good(chance, sent + 1), chance)
            try:
                reply = lanes.submit(LaneRequest(first, sent == 0, False, tensors))
            except StreamError as error:
                messages.append(str(error))
                survived["refused"] = survived.get("refused", 0) + 1
            else:
                sent += 1
                survived["taken"] = survived.get("taken", 0) + 1
                assert all(len(update) < 20_000 for update in reply.updates)
        for _ in range(30_000):
            if good.closed:
                break
            good.send()
        assert good.live.text == wanted
        good.send(end=True)
        if sent:
            lanes.submit(LaneRequest(first, False, True, {"BUNDLE": np.array([[sent + 1]], np.uint64)}))
    assert max(map(len, messages)) < 2000
    assert len(every) < 300 or min(survived.values()) > 50, survived
    unary.scheduler.close()
    lanes.close()
    unary.close()
    assert recognizer.num_open == 0
