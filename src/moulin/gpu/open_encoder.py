"""From an encoder of `moulin.encoders` to its form on the GPU."""

from __future__ import annotations

import torch

from moulin.encoders.conformer import Conformer
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer import Zipformer
from moulin.encoders.zipformer2 import Zipformer2
from moulin.errors import EngineError
from moulin.gpu.conformer import GpuConformer
from moulin.gpu.encoder import GpuEncoder
from moulin.gpu.zipformer import GpuZipformer
from moulin.gpu.zipformer2 import GpuZipformer2


def gpu_encoder(transducer: Transducer, *, device: torch.device, dtype: torch.dtype, max_frames: int) -> GpuEncoder:
    """The encoder, and the joiner's projection of it, for utterances of up to `max_frames` feature frames.

    Raises EngineError for a family without a form for the GPU.
    """
    encoder, joiner = transducer.encoder, transducer.joiner
    with torch.inference_mode():
        match encoder:
            case Zipformer2():
                return GpuZipformer2(encoder, joiner, device=device, dtype=dtype, max_frames=max_frames)
            case Zipformer():
                return GpuZipformer(encoder, joiner, device=device, dtype=dtype, max_frames=max_frames)
            case Conformer():
                return GpuConformer(encoder, joiner, device=device, dtype=dtype, max_frames=max_frames)
    raise EngineError(f"The GPU engine does not know the {encoder.family} encoder")
