"""Encoder families that the GPU engine knows, by Icefall's `model_type`, and the class of each.

A new family is a file with its class, and a line here. This file imports nothing, so that it can be read without
loading PyTorch; `moulin.gpu.open_encoder` makes the encoders.
"""

from __future__ import annotations

OFFLINE_FAMILIES = {
    "zipformer2": "moulin.gpu.zipformer2:GpuZipformer2",
    "zipformer": "moulin.gpu.zipformer:GpuZipformer",
    "conformer": "moulin.gpu.conformer:GpuConformer",
}
"""Classes for whole utterances: each is a `moulin.gpu.encoder.GpuEncoder`."""


def contexts_fit(vocab_size: int, context_size: int) -> bool:
    """Whether 64 bits number all contexts of a decoder that sees `context_size` tokens: four of a vocabulary of 55,000,
    seven of one of 500."""
    return bool((vocab_size + 1) ** context_size < 1 << 63)


STREAM_FAMILIES = {
    "zipformer2": "moulin.gpu.stream_zipformer2:GpuStreamZipformer2",
    "zipformer": "moulin.gpu.stream_zipformer:GpuStreamZipformer",
    "conformer": "moulin.gpu.stream_conformer:GpuStreamConformer",
    "lstm": "moulin.gpu.stream_lstm:GpuStreamLstm",
}
"""Classes for streams: each is a `moulin.gpu.encoder.GpuStreamEncoder`."""
