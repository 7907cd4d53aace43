"""Zipformer, the first version, on a GPU, chunk by chunk, with the states of all streams on the card.

`moulin.encoders.zipformer.Zipformer.streaming_forward` is the plain twin. Means over a whole stream are float32 in
every precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moulin.encoders import zipformer as plain
from moulin.encoders.recipe import Recipe
from moulin.encoders.tensors import part
from moulin.errors import EngineError
from moulin.gpu.encoder import GpuStreamEncoder, embedding_projection
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.resampling import upsample_bypass
from moulin.gpu.kernels.stream_attention import MAX_BLOCK, Chunks, block_size, ring_attention_weights, ring_values
from moulin.gpu.kernels.stream_convolutions import ring_causal_depthwise
from moulin.gpu.kernels.stream_pooling import running_means
from moulin.gpu.kernels.subsampling import Subsampling, subsampling
from moulin.gpu.zipformer import Downsampling, ZipformerLayer, ZipformerStack, skip_scales


class GpuStreamZipformer(GpuStreamEncoder):
    def _make(self, encoder: plain.Zipformer, capacity: int, like: Tensor) -> None:
        chunk, left = _sizes(encoder)
        config, embed = encoder.config, encoder.encoder_embed
        _check(config, chunk, left)
        self._chunk, self._skips = chunk, config.skips
        convs = [module for module in embed.conv if isinstance(module, nn.Conv2d)]
        self._convs = Subsampling.of(convs[0], convs[1], convs[2], "double_swish", like.device, like.dtype)
        self._embed = embedding_projection(embed.out, embed.out.in_features // convs[2].out_channels, like)
        make_layer = partial(_StreamLayer, capacity=capacity, chunk=chunk, left=left)
        self._stacks = [
            ZipformerStack(stack, sizes, config.pos_dim, make_layer, like)  # type: ignore[arg-type]
            for stack, sizes in zip(encoder.encoders, config.stacks, strict=True)
        ]
        self._skip_scales = skip_scales(encoder, like)
        self._out = Downsampling(encoder.downsample_output, like)
        # All windows have the same length: lengths [B] of a batch in feature frames and in frames of the embedding.
        lengths = encoder.streaming_layout().window_frames, chunk
        self._lengths = [self._lengths_of(length) for length in lengths]

    @staticmethod
    def check_sizes(tensors: Mapping[str, Any], recipe: Recipe) -> None:
        assert recipe.chunk_size is not None
        assert recipe.left_context_frames is not None
        config = plain.ZipformerConfig.from_tensors(part(tensors, "encoder."), recipe)
        _check(config, recipe.chunk_size // 2, recipe.left_context_frames)

    @staticmethod
    def state_bytes(encoder: plain.Zipformer, dtype: torch.dtype) -> int:
        (chunk, left), size = _sizes(encoder), 0
        for sizes in encoder.config.stacks:
            rings = sum(map(math.prod, _ring_sizes(sizes, chunk, left)))
            size += sizes.num_layers * (rings * dtype.itemsize + sizes.dim * torch.float32.itemsize)
        return size

    @property
    def out_frames(self) -> int:
        return self._chunk // 2

    def __call__(self, windows: Tensor, at: Chunks) -> Tensor:
        batch = len(windows)
        features, frames = (length[:batch] for length in self._lengths)
        x = subsampling(windows, features, self._convs)
        x = self._embed(x.view(batch * self._chunk, -1)).view(batch, self._chunk, -1)
        outputs: list[Tensor] = []
        for stack, skip, scale in zip(self._stacks, self._skips, self._skip_scales, strict=True):
            if skip is not None and scale is not None:
                x = upsample_bypass(outputs[skip], x, 1, scale)
            x = stack(x, frames, at)
            outputs.append(x)
        x = self._out(x, frames)
        return self._projected(x.view(-1, x.shape[2])).view(*x.shape[:2], -1)


def _sizes(encoder: plain.Zipformer) -> tuple[int, int]:
    """Frames of a chunk and of its left context, both at 50 Hz."""
    layout = encoder.streaming_layout()
    lefts = {state.name: state.shape[1] for state in layout.states if state.name.startswith("cached_key_")}
    return layout.chunk_frames // 2, lefts["cached_key_0"] * encoder.config.downsampling_factors[0]


def _check(config: plain.ZipformerConfig, chunk: int, left: int) -> None:
    """Raises EngineError for sizes that the kernels do not take."""
    for factor in config.downsampling_factors:
        if block_size(chunk // factor, (left + chunk) // factor, config.pos_dim) > MAX_BLOCK:
            raise EngineError(
                f"The GPU engine takes no chunk of {2 * chunk} feature frames with a left context of {left} frames and "
                f"heads of {config.pos_dim} channels for positions: a block of scores would be too large",
                hint="a smaller --left-context-frames, or --precision fp32, which runs without our GPU engine",
            )


def _ring_sizes(sizes: plain._StackSizes, chunk: int, left: int) -> list[tuple[int, int]]:
    """Frames and width of a layer's rings: of keys, of values twice, of convolutions' inputs twice."""
    chunk, left = chunk // sizes.factor, left // sizes.factor
    values, convs = (left + chunk, sizes.attention_dim // 2), (sizes.kernel - 1 + chunk, sizes.dim)
    return [(left + chunk, sizes.attention_dim), values, values, convs, convs]


class _StreamLayer(ZipformerLayer[Chunks]):
    """A layer with rings for the past frames of every stream, and the mean of all of them."""

    def __init__(
        self,
        layer: plain._Layer,
        sizes: plain._StackSizes,
        pos_dim: int,
        like: Tensor,
        *,
        capacity: int,
        chunk: int,
        left: int,
    ) -> None:
        self._chunk = chunk // sizes.factor
        positions = plain._relative_positions(torch.empty(1, self._chunk, sizes.dim), left // sizes.factor)
        super().__init__(layer, sizes, pos_dim, like, positions=positions, causal=True)
        rings = [
            torch.zeros(capacity, *size, device=like.device, dtype=like.dtype)
            for size in _ring_sizes(sizes, chunk, left)
        ]
        self._keys, self._values, self._convs = rings[0], rings[1:3], rings[3:]
        self._means = torch.zeros(capacity, sizes.dim, device=like.device)

    def _pool(self, rows: Tensor, at: Chunks) -> Tensor:
        return rows.add_(self._pooling(running_means(rows, at, self._means)))

    def _weigh(self, projected: Tensor, at: Chunks) -> Tensor:
        return ring_attention_weights(
            projected,
            at,
            self._keys,
            self._distances,
            chunk=self._chunk,
            position_at=self._values_at.stop,
            pos_dim=self._pos_dim,
            zeros_before=True,
        )

    def _mix(self, weights: Tensor, values: Tensor, at: Chunks, module: int) -> Tensor:
        return ring_values(weights, values, at, self._values[module])

    def _convolve(self, projected: Tensor, conv: Depthwise, at: Chunks, module: int) -> Tensor:
        return ring_causal_depthwise(projected, at, self._convs[module], conv, "double_swish", chunk=self._chunk)
