"""Zipformer, the first version, on a GPU; `moulin.encoders.zipformer` is its plain twin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor, nn

from moulin.encoders import zipformer as plain
from moulin.gpu.encoder import Addition, At, Counts, GpuEncoder, Projection, bias_of, embedding_projection, on
from moulin.gpu.kernels.attention_weights import AttentionWeights, attention_weights, distance_table
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.pointwise import basic_norm_bypass
from moulin.gpu.kernels.resampling import attentive_downsample, upsample_bypass
from moulin.gpu.kernels.subsampling import Subsampling, subsampling
from moulin.gpu.kernels.weighted_values import weighted_values
from moulin.gpu.modules import Convolution, FeedForward, convolved


class GpuZipformer(GpuEncoder):
    def __init__(
        self, encoder: plain.Zipformer, out: nn.Linear, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        like = torch.empty(0, device=device, dtype=dtype)
        config, embed = encoder.config, encoder.encoder_embed
        self.dtype, self.feature_dim, self.out_channels = dtype, encoder.feature_dim, out.out_features
        self._factors, self._skips = config.downsampling_factors, config.skips
        convs = [module for module in embed.conv if isinstance(module, nn.Conv2d)]
        self._convs = Subsampling.of(convs[0], convs[1], convs[2], "double_swish", device, dtype)
        self._embed = embedding_projection(embed.out, embed.out.in_features // convs[2].out_channels, like)
        frames = self._convs.frames(max_frames)
        self._stacks = [
            ZipformerStack(stack, sizes, config.pos_dim, partial(_UtteranceLayer, frames=frames), like)  # type: ignore[arg-type]
            for stack, sizes in zip(encoder.encoders, config.stacks, strict=True)
        ]
        self._skip_scales = skip_scales(encoder, like)
        self._out = Downsampling(encoder.downsample_output, like)
        self._out_layer = Projection.of(out, missing=None, like=like)

    def counts(self, frames: Counts) -> Counts:
        """Counts of feature frames, of frames after the embedding and in each stack, and of encoder frames."""
        embedded = (frames - 7) // 2
        stacks = [-(-embedded // factor) for factor in self._factors]
        counts: Counts = np.stack([frames, embedded, *stacks, -(-embedded // 2)])
        return counts

    def __call__(self, features: Tensor, counts: Tensor) -> Tensor:
        embedded = counts[1]
        x = subsampling(features, counts[0], self._convs)
        batch, frames = x.shape[:2]
        x = self._embed(x.view(batch * frames, -1)).view(batch, frames, -1)
        outputs: list[Tensor] = []
        for index, stack in enumerate(self._stacks):
            skip, scale = self._skips[index], self._skip_scales[index]
            if skip is not None and scale is not None:
                x = upsample_bypass(outputs[skip], x, 1, scale)
            x = stack(x, embedded, counts[2 + index])
            outputs.append(x)
        x = self._out(x, embedded)
        return self._out_layer(x.view(-1, x.shape[2])).view(*x.shape[:2], -1)


def skip_scales(encoder: plain.Zipformer, like: Tensor) -> list[Tensor | None]:
    """For each stack with a skip the scale of the bypass that mixes it in."""
    config = encoder.config
    dims = (0, *config.encoder_dims[:-1])
    return [
        None if skip is None else _mix(module, dim, like)
        for skip, module, dim in zip(config.skips, encoder.skip_modules, dims, strict=True)
    ]


def _mix(combiner: nn.Module, dim: int, like: Tensor) -> Tensor:
    """A combiner's scales as a bypass: weight x + (1 - weight) y = x + (y - x) (1 - weight), in all `dim` channels."""
    weight = combiner.weight1
    assert isinstance(weight, Tensor)
    return on((1.0 - weight.detach()).expand(dim), like, dtype=torch.float32)


class Downsampling:
    """`moulin.encoders.zipformer._Downsample`."""

    def __init__(self, module: plain._Downsample, like: Tensor) -> None:
        self._factor, self._query = module.factor, on(module.query, like, dtype=torch.float32)
        extra = module.extra_proj
        self._extra = None if extra is None else Projection.of(extra, missing=None, like=like)
        self._dim = len(module.query) + (0 if extra is None else extra.out_features)

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        out = attentive_downsample(x, lengths, self._query, self._factor, self._dim)
        if self._extra is not None:
            batch, frames, dim = x.shape
            groups = out.shape[1]
            # Copies of an utterance's last frame complete its last group.
            seen = torch.arange(groups * self._factor, device=x.device, dtype=torch.int64)
            seen = torch.minimum(seen[None], (lengths[:, None] - 1).clamp(max=frames - 1).long())
            grouped = x.gather(1, seen[:, :, None].expand(-1, -1, dim)).view(batch * groups, self._factor * dim)
            out[..., dim:] = self._extra(grouped).view(batch, groups, -1)
        return out


class ZipformerStack(Generic[At]):
    """Layers at one frame rate, with the resampling before and after them."""

    def __init__(
        self,
        stack: plain._Stack | plain._DownsampledStack,
        sizes: plain._StackSizes,
        pos_dim: int,
        make_layer: Callable[[plain._Layer, plain._StackSizes, int, Tensor], ZipformerLayer[At]],
        like: Tensor,
    ) -> None:
        self._dim, self._factor = sizes.dim, sizes.factor
        layers = stack.layers if isinstance(stack, plain._Stack) else stack.encoder.layers
        self._layers = [make_layer(layer, sizes, pos_dim, like) for layer in layers]  # type: ignore[arg-type]
        if isinstance(stack, plain._DownsampledStack):
            self._downsample = Downsampling(stack.downsample, like)
            self._shift = on(stack.upsample.bias, like, dtype=torch.float32)
            self._scale = _mix(stack.out_combiner, sizes.dim, like)

    def __call__(self, x: Tensor, before: Tensor, at: At) -> Tensor:
        """x [B, T, any width], with `before` int32 [B] frames each, to [B, T, D]; `at` is passed to the layers."""
        if self._factor == 1:
            return self._run(x, at)
        after = self._run(self._downsample(x, before), at)
        return upsample_bypass(x, after, self._factor, self._scale, self._shift)

    def _run(self, x: Tensor, at: At) -> Tensor:
        rows = x.reshape(-1, self._dim)
        for layer in self._layers:
            rows = layer(rows, at)
        return rows.view_as(x)


class ZipformerLayer(ABC, Generic[At]):
    """`moulin.encoders.zipformer._Layer`. Biases of additions to rows are added in the bypass at the end.

    Modules that mix frames are abstract: the other frames are in the same utterance, or in a stream's past. `At`
    describes the batch.
    """

    def __init__(
        self,
        layer: plain._Layer,
        sizes: plain._StackSizes,
        pos_dim: int,
        like: Tensor,
        *,
        positions: Tensor,
        causal: bool,
    ) -> None:
        """`positions` are the encoded distances between any two frames."""
        attention = layer.self_attn
        self._feed_forward1 = _feed_forward(layer.feed_forward1, None, like)
        missing = bias_of(layer.feed_forward1.out_proj)
        self._pooling = Projection.of(layer.pooling.proj, missing=missing, like=like)
        self._query_dim, self._pos_dim = sizes.attention_dim // sizes.nhead, pos_dim
        self._key_at = sizes.attention_dim
        self._values_at = slice(2 * sizes.attention_dim, 5 * sizes.attention_dim // 2)
        self._attention_in = Projection.of(attention.in_proj, missing=missing, like=like)
        by_head = attention.linear_pos(positions).unflatten(1, (sizes.nhead, pos_dim)).transpose(0, 1)
        self._distances = on(distance_table(by_head), like)
        self._attention_out = Addition.of(attention.out_proj, like=like)
        missing = missing + bias_of(attention.out_proj)
        self._conv1 = _convolution(layer.conv_module1, causal, missing, like)
        missing = missing + bias_of(layer.conv_module1.pointwise_conv2)
        self._feed_forward2 = _feed_forward(layer.feed_forward2, missing, like)
        missing = missing + bias_of(layer.feed_forward2.out_proj)
        self._attention_in2 = Projection.of(attention.in_proj2, missing=missing, like=like)
        self._attention_out2 = Addition.of(attention.out_proj2, like=like)
        missing = missing + bias_of(attention.out_proj2)
        self._conv2 = _convolution(layer.conv_module2, causal, missing, like)
        missing = missing + bias_of(layer.conv_module2.pointwise_conv2)
        self._feed_forward3 = _feed_forward(layer.feed_forward3, missing, like)
        self._missing = on(missing + bias_of(layer.feed_forward3.out_proj), like, dtype=torch.float32)
        self._epsilon = float(layer.norm_final.eps.exp())
        self._scale = on(layer.bypass_scale.expand(sizes.dim), like, dtype=torch.float32)

    def __call__(self, before: Tensor, at: At) -> Tensor:
        """Rows [B T, D] to new rows."""
        rows = self._feed_forward1(before.clone())
        rows = self._pool(rows, at)
        projected = self._attention_in(rows)
        weights = self._weigh(projected, at)
        rows = self._attention_out(rows, self._mix(weights, projected[:, self._values_at], at, 0))
        rows = self._conv1.last(rows, self._convolve(self._conv1.first(rows), self._conv1.conv, at, 0))
        rows = self._feed_forward2(rows)
        rows = self._attention_out2(rows, self._mix(weights, self._attention_in2(rows), at, 1))
        rows = self._conv2.last(rows, self._convolve(self._conv2.first(rows), self._conv2.conv, at, 1))
        rows = self._feed_forward3(rows)
        return basic_norm_bypass(rows, self._missing, self._epsilon, before, self._scale)

    @abstractmethod
    def _pool(self, rows: Tensor, at: At) -> Tensor:
        """Add the projected mean of an utterance, or of all frames so far, to each frame, in place."""

    @abstractmethod
    def _weigh(self, projected: Tensor, at: At) -> Any:
        """Attention weights for `_mix`: `projected` rows hold queries, keys from column `_key_at` on, values in the
        columns `_values_at`, and then positional queries."""

    @abstractmethod
    def _mix(self, weights: Any, values: Tensor, at: At, module: int) -> Tensor:
        """Weighted `values` [B T, C], the first (0) or the second of a layer."""

    @abstractmethod
    def _convolve(self, projected: Tensor, conv: Depthwise, at: At, module: int) -> Tensor:
        """Values times the sigmoid of gates, convolved and activated, in the first or second module."""


class _UtteranceLayer(ZipformerLayer[Tensor]):
    """A layer for a batch of utterances, described by their lengths int32 [B]."""

    def __init__(
        self, layer: plain._Layer, sizes: plain._StackSizes, pos_dim: int, like: Tensor, *, frames: int
    ) -> None:
        positions = plain._relative_positions(torch.empty(1, -(-frames // sizes.factor), sizes.dim), 0)
        self._causal = layer.pooling.causal
        super().__init__(layer, sizes, pos_dim, like, positions=positions, causal=self._causal)

    def _pool(self, rows: Tensor, at: Tensor) -> Tensor:
        x = rows.view(len(at), -1, rows.shape[1])
        place = torch.arange(x.shape[1], device=x.device)
        if self._causal:
            mean = x.float().cumsum(dim=1) / (place + 1)[:, None]
            return rows.add_(self._pooling(mean.to(rows.dtype).view_as(rows)))
        heard = (place < at[:, None]).to(torch.float32) / at[:, None]
        mean = torch.bmm(heard.to(rows.dtype)[:, None], x)[:, 0]
        x += self._pooling(mean)[:, None]
        return rows

    def _weigh(self, projected: Tensor, at: Tensor) -> AttentionWeights:
        return attention_weights(
            projected.view(len(at), -1, projected.shape[1]),
            at,
            self._distances,
            query_dim=self._query_dim,
            key_at=self._key_at,
            position_at=self._values_at.stop,
            pos_dim=self._pos_dim,
        )

    def _mix(self, weights: AttentionWeights, values: Tensor, at: Tensor, module: int) -> Tensor:  # noqa: ARG002
        return weighted_values(weights, values.view(len(at), -1, values.shape[1]), at).flatten(0, 1)

    def _convolve(self, projected: Tensor, conv: Depthwise, at: Tensor, module: int) -> Tensor:  # noqa: ARG002
        return convolved(projected, at, conv)


def _convolution(module: plain._Convolution, causal: bool, missing: Tensor, like: Tensor) -> Convolution:
    first, last = module.pointwise_conv1, module.pointwise_conv2
    return Convolution.of(first, module.depthwise_conv, last, causal=causal, missing=missing, like=like)


def _feed_forward(module: plain._FeedForward, missing: Tensor | None, like: Tensor) -> FeedForward:
    return FeedForward(module.in_proj, module.out_proj, "double_swish", missing=missing, like=like)
