"""What the GPU engine's recognizers of whole utterances and of streams take from a checkpoint, and say of it."""

from __future__ import annotations

import torch

from moulin.bundle.spec import CheckpointSpec
from moulin.encoders.transducer import Transducer
from moulin.errors import EngineError
from moulin.gpu.predictor import Predictor


def open_predictor(
    spec: CheckpointSpec, transducer: Transducer, *, device: torch.device, dtype: torch.dtype
) -> Predictor:
    """The decoder and joiner of `spec`, which `transducer` is. Raises EngineError for a form that the GPU engine does
    not know."""
    try:
        return Predictor.of(transducer.decoder, transducer.joiner, device=device, dtype=dtype)
    except ValueError as error:
        raise EngineError(
            f"{spec.checkpoint}: {error}", hint="--precision fp32 runs it without our GPU engine"
        ) from error


def unk_id(spec: CheckpointSpec) -> int:
    """The token that is not emitted beside blank, -1 where there is none."""
    return next((token for token in spec.tokens.skipped_ids if token != 0), -1)
