"""Recognizers for benchmarks of streams in this process, their memory, and the GPU's part of a step."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.waveform import in_16_bits
from moulin.bundle.spec import CheckpointSpec, ModelSpec
from moulin.engine.device import gpu_index
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.process_usage import memory_bytes
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer

Audio = NDArray[np.int16] | Floats

_PLAIN_STREAMS = 512


def open_streams(
    spec: ModelSpec, engine: EngineChoice, *, max_streams: int, max_batch: int | None = None
) -> StreamRecognizer:
    """A warm recognizer for `max_streams` of `spec`, opened as the service opens it, with all graphs."""
    recognizer = open_stream_recognizer(spec.file, engine, max_streams=max_streams, max_batch=max_batch)
    recognizer.warm_up()
    pipeline = getattr(recognizer.stepper, "pipeline", None)
    if pipeline is not None:
        pipeline.capture_all()
    return recognizer


def open_plain(
    spec: ModelSpec, engine: EngineChoice, *, max_streams: int = _PLAIN_STREAMS, max_batch: int | None = None
) -> StreamRecognizer:
    """A recognizer to compare with: a checkpoint's plain modules in fp32 on the same device, ONNX files on the CPU."""
    sizes: dict[str, Any] = {"max_streams": max_streams, "max_batch": max_batch}
    if isinstance(spec, CheckpointSpec):
        plain = EngineChoice(device=engine.device, precision="fp32", threads=engine.threads)
        return open_stream_recognizer(spec.file, plain, **sizes)
    return open_stream_recognizer(spec.path, EngineChoice(threads=engine.threads), **sizes)


def demo_audio() -> NDArray[np.int16]:
    """All demo recordings behind each other, int16 [n]."""
    return in_16_bits(np.concatenate([read_audio(clip.audio) for clip in demo_clips()]))


def to_float32(samples: NDArray[np.int16]) -> Floats:
    return samples / np.float32(32768)


def gpu_step_ms(recognizer: StreamRecognizer, batch: int) -> float | None:
    """The GPU's time for a step of `batch` streams by our GPU engine, a size that has a graph; None on other engines.

    The streams' states are invalid afterwards: open new ones.
    """
    pipeline = getattr(recognizer.stepper, "pipeline", None)
    return None if pipeline is None else float(pipeline.replay_ms(batch))


def memory_in_use(device: str) -> dict[str, float]:
    """MiB of this process, and on a GPU of its tensors, of PyTorch's reserve, and of all processes."""
    used = {"resident": memory_bytes(os.getpid()) / 2**20}
    if gpu_index(device) is not None:
        import torch

        torch.cuda.synchronize(device)
        free, total = torch.cuda.mem_get_info(device)
        used["card_tensors"] = torch.cuda.memory_allocated(device) / 2**20
        used["card_reserved"] = torch.cuda.memory_reserved(device) / 2**20
        used["card"] = (total - free) / 2**20
    return {name: round(mib, 1) for name, mib in used.items()}
