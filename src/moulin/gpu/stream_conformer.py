"""The Conformer on a GPU, chunk by chunk, with the states of all streams on the card.

`moulin.encoders.conformer.Conformer.streaming_forward` is the plain twin. It keeps the inputs of attention and projects
them again for every chunk; here a frame's key and value are computed once and kept in its stream's ring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moulin.encoders.conformer import Conformer, ConformerConfig, relative_positions
from moulin.encoders.conformer import ConformerLayer as PlainLayer
from moulin.encoders.recipe import Recipe
from moulin.gpu.conformer import ConformerLayer
from moulin.gpu.encoder import GpuStreamEncoder
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.kernels.stream_convolutions import ring_causal_depthwise
from moulin.gpu.kernels.stream_relative_attention import ring_relative_attention
from moulin.gpu.modules import Embedding

_EDGE = 3
"""Feature frames at either end of a window that only its first or last vector sees, which are dropped."""


class GpuStreamConformer(GpuStreamEncoder):
    def _make(self, encoder: Conformer, capacity: int, like: Tensor) -> None:
        self._chunk, left, right = _sizes(encoder)
        self._embed = Embedding(encoder.encoder_embed, like, whole=False)
        frames = self._chunk + right
        positions = relative_positions(frames, left + frames, encoder.output_dim, torch.empty(0))
        rings = _ring_sizes(encoder)
        self._layers = [
            _StreamLayer(layer, positions, like, rings=[(capacity, *ring) for ring in rings], chunk=self._chunk)  # type: ignore[arg-type]
            for layer in encoder.encoder.layers
        ]
        features = encoder.streaming_layout().window_frames - 2 * _EDGE
        self._lengths = self._lengths_of(features)

    @staticmethod
    def check_sizes(tensors: Mapping[str, Any], recipe: Recipe) -> None:
        """The kernels take all sizes."""

    @staticmethod
    def state_bytes(encoder: Conformer, dtype: torch.dtype) -> int:
        config: ConformerConfig = encoder.config
        return config.num_layers * sum(map(math.prod, _ring_sizes(encoder))) * dtype.itemsize

    @property
    def out_frames(self) -> int:
        return self._chunk

    def __call__(self, windows: Tensor, at: Chunks) -> Tensor:
        batch = len(windows)
        rows = self._embed(windows[:, _EDGE:-_EDGE].contiguous(), self._lengths[:batch])
        for layer in self._layers:
            rows = layer(rows, at)
        own = rows.view(batch, -1, rows.shape[1])[:, : self._chunk].flatten(0, 1)
        return self._projected(own).view(batch, self._chunk, -1)


def _sizes(encoder: Conformer) -> tuple[int, int, int]:
    """Encoder frames of a chunk, its left and its right context."""
    layout = encoder.streaming_layout()
    return layout.chunk_frames // 4, layout.states[0].shape[1], encoder.right_context


def _ring_sizes(encoder: Conformer) -> list[tuple[int, int]]:
    """Frames and width of a layer's rings: of keys and values, of the convolution's inputs."""
    chunk, left, right = _sizes(encoder)
    config: ConformerConfig = encoder.config
    return [(left + chunk, 2 * config.dim), (config.kernel - 1 + chunk + right, config.dim)]


class _StreamLayer(ConformerLayer[Chunks]):
    """A layer with rings for the past frames of every stream."""

    def __init__(
        self, layer: PlainLayer, positions: Tensor, like: Tensor, *, rings: list[tuple[int, ...]], chunk: int
    ) -> None:
        super().__init__(layer, positions, like, causal=True)
        self._chunk = chunk
        self._memory, self._convolved = (torch.zeros(*ring, device=like.device, dtype=like.dtype) for ring in rings)

    def _attend(self, projected: Tensor, at: Chunks) -> Tensor:
        return ring_relative_attention(
            projected, at, self._memory, self._distances, self._content_shift, chunk=self._chunk
        )

    def _convolve(self, projected: Tensor, conv: Depthwise, at: Chunks) -> Tensor:
        return ring_causal_depthwise(projected, at, self._convolved, conv, "double_swish", chunk=self._chunk)
