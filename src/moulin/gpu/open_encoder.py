"""From an encoder of `moulin.encoders` to its form on the GPU, by `moulin.gpu.families`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch

from moulin.encoders.encoder import Encoder
from moulin.encoders.transducer import Transducer
from moulin.errors import EngineError
from moulin.gpu.encoder import GpuEncoder, GpuStreamEncoder
from moulin.gpu.families import OFFLINE_FAMILIES, STREAM_FAMILIES


def gpu_encoder(transducer: Transducer, *, device: torch.device, dtype: torch.dtype, max_frames: int) -> GpuEncoder:
    """The encoder, and the joiner's projection of it, for utterances of up to `max_frames` feature frames.

    Raises EngineError for a family without a form for the GPU.
    """
    form: type[GpuEncoder] = _form(OFFLINE_FAMILIES, transducer.encoder, "encoder")
    with torch.inference_mode():
        return form.of(transducer, device=device, dtype=dtype, max_frames=max_frames)


def gpu_stream_encoder(
    transducer: Transducer, *, capacity: int, max_batch: int, device: torch.device, dtype: torch.dtype
) -> GpuStreamEncoder:
    """The same for streams in `capacity` slots, of which `max_batch` go through it together.

    Raises EngineError for a family without a form for streams on the GPU, and for sizes that it does not take.
    """
    form = _stream_form(transducer.encoder)
    with torch.inference_mode():
        return form.of(transducer, capacity=capacity, max_batch=max_batch, device=device, dtype=dtype)


def values_a_stream(transducer: Transducer) -> int:
    """How many numbers `gpu_stream_encoder` keeps for each slot. Raises EngineError for a family without a form."""
    return _stream_form(transducer.encoder).values_a_stream(transducer)


def _stream_form(encoder: Encoder) -> type[GpuStreamEncoder]:
    return _form(STREAM_FAMILIES, encoder, "encoder of streams")


def _form[Form](families: Mapping[str, str], encoder: Encoder, what: str) -> type[Form]:
    if encoder.family not in families:
        raise EngineError(f"The GPU engine does not know the {encoder.family} {what}")
    module, _, name = families[encoder.family].partition(":")
    form: type[Form] = getattr(importlib.import_module(module), name)
    return form
