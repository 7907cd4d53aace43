"""The decoder and joiner of a checkpoint as the GPU engine uses them, for whole utterances and for streams."""

from __future__ import annotations

import torch

from moulin.bundle.spec import ModelSpec
from moulin.encoders.transducer import Transducer
from moulin.errors import EngineError
from moulin.gpu.predictor import Predictor


def open_predictor(spec: ModelSpec, transducer: Transducer, *, device: torch.device, dtype: torch.dtype) -> Predictor:
    """The decoder and joiner of `transducer`, the loaded one of `spec`. Raises EngineError for a form that the GPU
    engine does not know."""
    unk_id = next((token for token in spec.tokens.skipped_ids if token != 0), -1)
    try:
        return Predictor.of(transducer.decoder, transducer.joiner, device=device, dtype=dtype, unk_id=unk_id)
    except ValueError as error:
        raise EngineError(f"{spec.file}: {error}", hint="--precision fp32 runs it without our GPU engine") from error
