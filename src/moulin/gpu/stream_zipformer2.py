"""Causal Zipformer2 on a GPU, chunk by chunk, with the states of all streams on the card.

The states of a stream are written once, in its slot, and read where they lie: a step gathers and moves nothing.
`moulin.encoders.zipformer2.Zipformer2.streaming_forward` is the plain twin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from moulin.encoders.recipe import Recipe
from moulin.encoders.zipformer2 import (
    CONVNEXT_PADDING,
    OUTPUT_DOWNSAMPLING,
    Layer,
    Zipformer2,
    Zipformer2Config,
    encoded_distances,
    infer_config,
)
from moulin.errors import EngineError
from moulin.gpu.encoder import GpuStreamEncoder, embedding_projection, on
from moulin.gpu.kernels.convnext import ConvNeXtWeights, convnext
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.resampling import downsample
from moulin.gpu.kernels.stream_attention import (
    MAX_BLOCK,
    Chunks,
    block_size,
    ring_attention_weights,
    ring_gated_values,
    ring_values,
)
from moulin.gpu.kernels.stream_convolutions import ring_depthwise, with_past
from moulin.gpu.kernels.subsampling import Subsampling, subsampling
from moulin.gpu.zipformer2 import Norm, Zipformer2Layer, Zipformer2Stack, widest


class GpuStreamZipformer2(GpuStreamEncoder):
    def _make(self, encoder: Zipformer2, capacity: int, like: Tensor) -> None:
        encoder.streaming_layout()
        chunk, left = encoder.chunk_size, encoder.left_context_frames
        _check(encoder.config, chunk, left)
        config, embed = encoder.config, encoder.encoder_embed
        self._chunk, self._dims = chunk, config.encoder_dims
        one, two, three = (embed.conv[index] for index in (0, 2, 4))
        self._convs = Subsampling.of(one, two, three, "swoosh_r", like.device, like.dtype)  # type: ignore[arg-type]
        self._convnext = ConvNeXtWeights.of(embed.convnext, like.device, like.dtype)
        self._embed = embedding_projection(embed.out, config.embed_bands, like)
        self._embed_norm = Norm(embed.out_norm, like)
        self._embed_past = torch.zeros(capacity, *_embed_past_size(config), device=like.device, dtype=like.dtype)
        make_layer = partial(_StreamLayer, capacity=capacity, chunk=chunk, left=left)
        self._stacks = [
            Zipformer2Stack(stack, config, index, make_layer, like)  # type: ignore[arg-type]
            for index, stack in enumerate(encoder.encoder.encoders)
        ]
        self._downsampling = on(encoder.encoder.downsample_output.bias.softmax(dim=0), like, dtype=torch.float32)
        window = 2 * chunk + 7 + 2 * CONVNEXT_PADDING
        # All windows have the same length: lengths [B] of a batch at the three frame rates that kernels ask for.
        lengths = (window, chunk + 2 * CONVNEXT_PADDING, chunk)
        self._lengths = [self._lengths_of(length) for length in lengths]

    @staticmethod
    def check_sizes(tensors: Mapping[str, Any], recipe: Recipe) -> None:
        assert recipe.chunk_size is not None
        assert recipe.left_context_frames is not None
        _check(infer_config(tensors, recipe), recipe.chunk_size, recipe.left_context_frames)

    @staticmethod
    def state_bytes(encoder: Zipformer2, dtype: torch.dtype) -> int:
        config, values = encoder.config, math.prod(_embed_past_size(encoder.config))
        chunk, left = encoder.chunk_size, encoder.left_context_frames
        for stack, num_layers in enumerate(config.num_layers):
            values += num_layers * sum(map(math.prod, _ring_sizes(config, stack, chunk, left)))
        return values * dtype.itemsize

    @property
    def out_frames(self) -> int:
        return self._chunk // OUTPUT_DOWNSAMPLING

    def __call__(self, windows: Tensor, at: Chunks) -> Tensor:
        batch = len(windows)
        features, around, frames = (length[:batch] for length in self._lengths)
        x = subsampling(windows, features, self._convs)
        x = with_past(x, at, self._embed_past, self._chunk)
        x = convnext(x, around, self._convnext)[:, CONVNEXT_PADDING:-CONVNEXT_PADDING]
        rows = x.reshape(batch * self._chunk, -1)
        x = self._embed_norm(self._embed(rows)).view(batch, self._chunk, -1)
        outputs: list[Tensor] = []
        for stack in self._stacks:
            x = stack(x, frames, at)
            outputs.append(x)
        x = downsample(widest(outputs, self._dims), frames, self._downsampling, max(self._dims))
        return self._projected(x.view(-1, x.shape[2])).view(*x.shape[:2], -1)


def _check(config: Zipformer2Config, chunk: int, left: int) -> None:
    """Raises EngineError for sizes that the kernels do not take."""
    if chunk < CONVNEXT_PADDING:
        raise EngineError(
            f"The GPU engine takes chunks of {CONVNEXT_PADDING} frames or more, got {chunk}",
            hint="a larger --chunk-size, or --precision fp32, which runs without our GPU engine",
        )
    for factor, pos_dim in zip(config.downsampling_factors, config.pos_head_dims, strict=True):
        if block_size(chunk // factor, (left + chunk) // factor, pos_dim) > MAX_BLOCK:
            raise EngineError(
                f"The GPU engine takes no chunk of {chunk} frames with a left context of {left} and heads of {pos_dim} "
                "channels for positions: a block of scores would be too large",
                hint="a smaller --left-context-frames, or --precision fp32, which runs without our GPU engine",
            )


def _embed_past_size(config: Zipformer2Config) -> tuple[int, int, int]:
    return CONVNEXT_PADDING, config.embed_bands, config.embed_channels[-1]


def _ring_sizes(config: Zipformer2Config, stack: int, chunk: int, left: int) -> list[tuple[int, int]]:
    """Frames and width of a layer's rings: of keys, of what gates, of values twice, of convolutions' inputs twice."""
    factor, heads, dim = config.downsampling_factors[stack], config.num_heads[stack], config.encoder_dims[stack]
    ring = (left + chunk) // factor
    values = ring, heads * config.value_head_dims[stack]
    convs = config.conv_kernels[stack] // 2 + chunk // factor, dim
    return [(ring, heads * config.query_head_dims[stack]), (ring, 3 * dim // 4), values, values, convs, convs]


class _StreamLayer(Zipformer2Layer[Chunks]):
    """A layer with rings for the past frames of every stream."""

    def __init__(
        self, layer: Layer, config: Zipformer2Config, stack: int, like: Tensor, *, capacity: int, chunk: int, left: int
    ) -> None:
        factor = config.downsampling_factors[stack]
        self._chunk = chunk // factor
        ring = (left + chunk) // factor
        distances = encoded_distances(torch.empty(1, self._chunk, 1), ring, config.pos_dim)
        super().__init__(layer, config, stack, distances, like)
        rings = [
            torch.zeros(capacity, *size, device=like.device, dtype=like.dtype)
            for size in _ring_sizes(config, stack, chunk, left)
        ]
        self._keys, self._gated, self._values, self._convs = rings[0], rings[1], rings[2:4], rings[4:]

    def _weigh(self, projected: Tensor, at: Chunks) -> Tensor:
        return ring_attention_weights(
            projected,
            at,
            self._keys,
            self._distances,
            chunk=self._chunk,
            position_at=2 * self._key_at,
            pos_dim=self._pos_dim,
        )

    def _gate(self, weights: Tensor, projected: Tensor, at: Chunks) -> Tensor:
        return ring_gated_values(weights, projected, at, self._gated)

    def _mix(self, weights: Tensor, values: Tensor, at: Chunks, module: int) -> Tensor:
        return ring_values(weights, values, at, self._values[module])

    def _convolve(self, projected: Tensor, conv: Depthwise, at: Chunks, module: int) -> Tensor:
        return ring_depthwise(projected, at, self._convs[module], conv, "swoosh_r")
