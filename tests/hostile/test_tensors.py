"""Tensors of any shape, type and content: text, or an error about the request; and every stream is closed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.decoding.options import DecodingOptions
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import EngineError, MoulinError
from moulin.models.open_recognizer import open_recognizer
from moulin.triton_repo.offline_service import OfflineRequest, OfflineService
from moulin.triton_repo.streaming_service import StreamingService, StreamReply, StreamRequest
from tests.bundles import BUNDLES
from tests.triton_repo.fake_stream_runner import SPEC, Answer, FakeStreamRunner

from .conftest import Seeds
from .mutations import mutated_json

OPTIONS = {"method": "modified_beam_search", "beam": 4, "temperature": 1.0, "blank_penalty": 0.0}


def samples(chance: random.Random, kind: str) -> Any:
    """Samples [B, N], mostly; float32 or int16."""
    shape = chance.choice(((1, 320), (1, 4000), (1, 0), (0, 0), (2, 100), (320,), (1, 2, 160), (1, 1)))
    noise = np.random.default_rng(chance.getrandbits(32)).normal(0, 0.1, shape).astype(np.float32)
    if kind == "int16":
        return (noise * 32768).astype(np.int16)
    if noise.size and chance.random() < 0.3:
        noise.flat[chance.randrange(noise.size)] = chance.choice((np.nan, np.inf, -np.inf, 32768.0, 1e38, 2.0, 1e-45))
    return noise


def lengths(chance: random.Random, wav: Any) -> Any:
    good = wav.shape[-1] if wav is not None and wav.ndim else 0
    value = chance.choice((good, good, good, 0, -1, good + 1, 2**31 - 1, -(2**31)))
    shape = chance.choice(((1, 1), (1, 1), (1, 1), (1,), (), (2, 1), (0, 1)))
    return np.full(shape, value, np.int32)


def options(chance: random.Random, seed: int) -> bytes | None:
    if chance.random() < 0.6:
        return None
    return mutated_json(OPTIONS, seed).encode("utf-8", "surrogatepass")


def maybe(chance: random.Random, value: Any, share: float = 0.1) -> Any:
    return None if chance.random() < share else value


@pytest.fixture
def service() -> Iterator[StreamingService]:
    running = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner())))
    yield running
    running.close()


def test_streams(service: StreamingService, seeds: Seeds, survived: dict[str, int]) -> None:
    for seed in seeds(20):
        chance = random.Random(seed)
        wav, int16 = maybe(chance, samples(chance, "float")), maybe(chance, samples(chance, "int16"), 0.9)
        index = np.full(chance.choice(((1, 1), (1, 1), (2, 1))), chance.choice((0, 1, 2, 2**64 - 1)), np.uint64)
        request = StreamRequest(
            stream_id=chance.choice((1, 2, 3, "a", "x" * 10_000)),
            start=chance.random() < 0.4,
            end=chance.random() < 0.2,
            wav=wav,
            wav_lens=maybe(chance, lengths(chance, wav if int16 is None else int16)),
            options=options(chance, seed),
            wants_update=chance.random() < 0.5,
            wav_int16=int16,
            chunk_index=maybe(chance, index, 0.7),
        )
        answer = Answer()
        service.submit(request, answer.respond)
        reply = answer.wait()
        assert not isinstance(reply, EngineError), (seed, reply)
        kind = "text" if isinstance(reply, StreamReply) else type(reply).__name__
        survived[kind] = survived.get(kind, 0) + 1
        if isinstance(reply, MoulinError):
            assert len(str(reply).encode()) < 2000, seed
        assert service.num_open <= 5
    for stream in (1, 2, 3, "a", "x" * 10_000):
        answer = Answer()
        service.submit(StreamRequest(stream, False, True, None, None), answer.respond)
        answer.wait()
    assert service.num_open == 0


def test_recordings(seeds: Seeds, survived: dict[str, int]) -> None:
    load_bundle(BUNDLES / "conformer-offline")
    with open_recognizer(BUNDLES / "conformer-offline", options=DecodingOptions()) as recognizer:
        service = OfflineService(recognizer)
        good = OfflineRequest(np.full((1, 1000), 0.01, np.float32), np.array([[1000]], np.int32))
        (expected,) = service.answer([good])
        for seed in seeds(4):
            chance = random.Random(seed)
            wav, int16 = maybe(chance, samples(chance, "float")), maybe(chance, samples(chance, "int16"), 0.9)
            wav_lens = maybe(chance, lengths(chance, wav if int16 is None else int16))
            rows = options(chance, seed)
            hostile = OfflineRequest(wav, wav_lens, None if rows is None else [rows] * chance.choice((1, 1, 2)), int16)
            beside, answer = service.answer([good, hostile])
            assert beside == expected, seed
            assert not isinstance(answer, EngineError), (seed, answer)
            kind = type(answer).__name__ if isinstance(answer, MoulinError) else "text"
            survived[kind] = survived.get(kind, 0) + 1
            if isinstance(answer, MoulinError):
                assert len(str(answer).encode()) < 2000, seed
