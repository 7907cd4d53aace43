"""Making of an encoder's form on the GPU from one of `moulin.encoders`, by `moulin.gpu.families`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.encoder import Encoder
from moulin.encoders.recipe import Recipe
from moulin.encoders.transducer import Transducer
from moulin.errors import EngineError
from moulin.gpu.blank_skip import output_layer
from moulin.gpu.encoder import GpuEncoder, GpuStreamEncoder
from moulin.gpu.families import OFFLINE_FAMILIES, STREAM_FAMILIES


def gpu_encoder(
    model: Transducer | CtcModel, *, device: torch.device, dtype: torch.dtype, max_frames: int
) -> GpuEncoder:
    """The encoder and the layer behind it (`blank_skip.output_layer`), for utterances of up to `max_frames` feature
    frames.

    Raises EngineError for a family without a form for the GPU.
    """
    form: type[GpuEncoder] = _form(OFFLINE_FAMILIES, model.encoder.family, "encoder")
    with torch.inference_mode():
        return form(model.encoder, output_layer(model), device=device, dtype=dtype, max_frames=max_frames)


def gpu_stream_encoder(
    model: Transducer | CtcModel, *, capacity: int, max_batch: int, device: torch.device, dtype: torch.dtype
) -> GpuStreamEncoder:
    """`gpu_encoder` for streams in `capacity` slots, of which `max_batch` go through it together.

    Raises EngineError for a family without a form for streams on the GPU, and for sizes that it does not take.
    """
    form = _stream_form(model.encoder.family)
    with torch.inference_mode():
        out = output_layer(model)
        return form(model.encoder, out, capacity=capacity, max_batch=max_batch, device=device, dtype=dtype)


def state_bytes(encoder: Encoder, dtype: torch.dtype) -> int:
    """The bytes that the form of `encoder` keeps for each slot. Raises EngineError for a family without one."""
    return _stream_form(encoder.family).state_bytes(encoder, dtype)


def check_stream_sizes(family: str, tensors: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises EngineError for an encoder that `gpu_stream_encoder` would refuse; see `GpuStreamEncoder.check_sizes`."""
    _stream_form(family).check_sizes(tensors, recipe)


def _stream_form(family: str) -> type[GpuStreamEncoder]:
    form: type[GpuStreamEncoder] = _form(STREAM_FAMILIES, family, "encoder of streams")
    return form


def _form(families: Mapping[str, str], family: str, what: str) -> Any:
    if family not in families:
        raise EngineError(
            f"The GPU engine does not know the {family} {what}",
            hint="--precision fp32, which runs a checkpoint without our GPU engine",
        )
    module, _, name = families[family].partition(":")
    return getattr(importlib.import_module(module), name)
