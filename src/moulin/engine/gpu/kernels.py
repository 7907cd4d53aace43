"""The kernels that a model on the GPU engine launches, compiled before its parts are made on the card."""

from __future__ import annotations

import logging

import torch

from moulin.audio.fbank import FbankOptions
from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import FRAME_SHIFT_SEC, ModelSpec
from moulin.encoders.transducer import Transducer
from moulin.engine.gpu.model import open_predictor
from moulin.engine.torch.prediction import DTYPES
from moulin.errors import first_line
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.graphs import most_rows
from moulin.gpu.kernel_cache import KernelSet, complete_kernels
from moulin.gpu.kernel_compiler import META, compiles_ahead, launching_nothing
from moulin.gpu.open_encoder import gpu_encoder, gpu_stream_encoder
from moulin.gpu.peak_memory import peak_bytes
from moulin.gpu.stream_pipeline import GpuStreamPipeline
from moulin.gpu.utterance_pass import utterance_passes
from moulin.streaming.window_layout import WindowLayout

logger = logging.getLogger(__name__)

_COUNTED = 64
"""Streams of the step whose memory is counted."""
_SPARE = 16
"""What graphs of all sizes took, to what the largest step holds at once: 13 for 1,024 streams of Zipformer2 and 15.5
for 4,096, when the smallest was captured first."""

MAX_BATCH = 1024
"""Streams in a step, where nothing else is asked for."""


def most_frames(max_audio_sec: float, tail_padding_sec: float) -> int:
    """Feature frames of the longest utterance."""
    return round((max_audio_sec + tail_padding_sec) / FRAME_SHIFT_SEC) + 1


def step_limits(max_batch: int | None, beam: int) -> tuple[int, int]:
    """Rows of the largest step, and places of its beams, of which `beam` is the widest that is searched on the card."""
    return most_rows(max_batch or MAX_BATCH), 1 << (beam - 1).bit_length()


def utterance_kernels(
    spec: ModelSpec, transducer: Transducer, *, max_audio_sec: float, tail_padding_sec: float
) -> KernelSet:
    """Those of `GpuEnginePipeline`, beams as wide as the default one."""
    dtype = DTYPES[spec.precision]
    max_frames, tail_samples = most_frames(max_audio_sec, tail_padding_sec), round(tail_padding_sec * SAMPLE_RATE)

    def run() -> None:
        encoder = gpu_encoder(transducer, device=META, dtype=dtype, max_frames=max_frames)
        predictor = open_predictor(spec, transducer, device=META, dtype=dtype)
        utterance_passes(encoder, predictor, tail_samples=tail_samples)

    sizes = "utterances", *_sizes(spec, transducer), max_frames, tail_samples
    return KernelSet(spec.name, sizes, run)


def stream_kernels(spec: ModelSpec, transducer: Transducer, *, max_batch: int | None, beam: int) -> KernelSet:
    """Those of `GpuStepper`."""
    rows, places = step_limits(max_batch, beam)

    def run() -> None:
        _steps(spec, transducer, rows, places).run_all_sizes()

    return KernelSet(spec.name, ("streams", *_sizes(spec, transducer), spec.streaming, rows, places), run)


def step_bytes(spec: ModelSpec, transducer: Transducer, *, beam: int) -> int:
    """The card's memory that a step works in, for each stream in it."""
    _, places = step_limits(None, beam)
    pipeline = _steps(spec, transducer, _COUNTED, places)
    with launching_nothing():
        return round(_SPARE * peak_bytes(lambda: pipeline.run_size(_COUNTED)) / _COUNTED)


def _steps(spec: ModelSpec, transducer: Transducer, rows: int, places: int) -> GpuStreamPipeline:
    """Steps on `META`."""
    assert spec.streaming is not None
    fbank = FbankOptions(num_mel_bins=spec.feature_dim)
    dtype = DTYPES[spec.precision]
    return GpuStreamPipeline(
        gpu_stream_encoder(transducer, capacity=2, max_batch=rows, device=META, dtype=dtype),
        open_predictor(spec, transducer, device=META, dtype=dtype),
        WindowLayout.of(fbank, spec.streaming.window_frames, spec.streaming.chunk_frames),
        capacity=1,
        max_batch=rows,
        beam_places=places,
        arena=AutomatonArena(META, rows=1),
        device=META,
    )


def complete_on(device: torch.device, kernels: KernelSet, *, threads: int | None = None) -> None:
    """`complete_kernels` for the card `device`; nothing in Triton-lang's interpreter, on a CPU. Where it cannot be done
    kernels are compiled when they are launched."""
    if device.type != "cuda" or not compiles_ahead():
        return
    major, minor = torch.cuda.get_device_capability(device)
    try:
        complete_kernels(kernels, 10 * major + minor, threads=threads)
    except (OSError, RuntimeError) as error:
        logger.warning("GPU kernels are not compiled ahead: %s", first_line(error))


def _sizes(spec: ModelSpec, transducer: Transducer) -> tuple[object, ...]:
    shapes = [(name, tuple(tensor.shape)) for name, tensor in sorted(transducer.tensors().items())]
    return transducer.encoder.family, transducer.encoder.recipe, shapes, spec.precision
