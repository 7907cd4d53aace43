"""The Conformer on a GPU; `moulin.encoders.conformer` is its plain twin."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from moulin.encoders.conformer import Conformer, ConformerLayer, RelativeAttention, relative_positions
from moulin.gpu.encoder import Addition, Counts, GpuEncoder, Projection, bias_of, embedding_projection, on
from moulin.gpu.kernels.depthwise import Depthwise
from moulin.gpu.kernels.pointwise import basic_norm
from moulin.gpu.kernels.relative_attention import relative_attention
from moulin.gpu.kernels.subsampling import Subsampling, subsampling
from moulin.gpu.modules import Convolution, FeedForward


class GpuConformer(GpuEncoder):
    def __init__(
        self, encoder: Conformer, out: nn.Linear, *, device: torch.device, dtype: torch.dtype, max_frames: int
    ) -> None:
        like = torch.empty(0, device=device, dtype=dtype)
        self.dtype, self.feature_dim, self.out_channels = dtype, encoder.feature_dim, out.out_features
        embed = encoder.encoder_embed
        one, two, three = (embed.conv[index] for index in (0, 2, 4))
        self._convs = Subsampling.of(one, two, three, "double_swish", device, dtype)  # type: ignore[arg-type]
        self._embed = embedding_projection(embed.out, embed.out.in_features // self._convs.channels[2], like)
        self._embed_epsilon = float(embed.out_norm.eps.exp())
        frames = self._convs.frames(max_frames) + 1
        positions = relative_positions(frames, frames, encoder.output_dim, torch.empty(0))
        self._layers = [_Layer(layer, positions, like) for layer in encoder.encoder.layers]  # type: ignore[arg-type]
        self._out_layer = Projection.of(out, missing=None, like=like)

    def counts(self, frames: Counts) -> Counts:
        """Counts of feature frames and of encoder frames."""
        counts: Counts = np.stack([frames, (frames - 3) // 4])
        return counts

    def __call__(self, features: Tensor, counts: Tensor) -> Tensor:
        x = subsampling(features, counts[0], self._convs)
        batch, frames = x.shape[:2]
        rows = self._embed(x.view(batch * frames, -1))
        rows = basic_norm(rows, torch.zeros_like(rows[0]), self._embed_epsilon)
        for layer in self._layers:
            rows = layer(rows, batch, counts[1])
        return self._out_layer(rows).view(batch, frames, -1)


class _Layer:
    """`moulin.encoders.conformer.ConformerLayer`. Biases of additions to rows are added in the norm at the end."""

    def __init__(self, layer: ConformerLayer, positions: Tensor, like: Tensor) -> None:
        (up1, down1), (up2, down2) = _linear_layers(layer.feed_forward_macaron), _linear_layers(layer.feed_forward)
        attention, conv = layer.self_attn, layer.conv_module
        self._feed_forward1 = FeedForward(up1, down1, "double_swish", missing=None, like=like)
        missing = bias_of(down1)
        self._attention_in = _attention_in(attention, missing, like)
        self._attention_out = Addition.of(attention.out_proj, like=like)
        self._distances = on(attention.linear_pos(positions), like)
        self._content_shift = on(attention.pos_bias_u - attention.pos_bias_v, like)
        missing = missing + bias_of(attention.out_proj)
        depthwise_bias = conv.depthwise_conv.bias
        assert depthwise_bias is not None
        left = conv.kernel - 1 if conv.causal else conv.kernel // 2
        prepared = Depthwise(on(conv.depthwise_conv.weight[:, 0].t(), like), on(depthwise_bias, like), left)
        first, last = conv.pointwise_conv1, conv.pointwise_conv2
        self._conv = Convolution(first, prepared, last, "double_swish", missing=missing, like=like)
        missing = missing + bias_of(conv.pointwise_conv2)
        self._feed_forward2 = FeedForward(up2, down2, "double_swish", missing=missing, like=like)
        self._missing = on(missing + bias_of(down2), like, dtype=torch.float32)
        self._epsilon = float(layer.norm_final.eps.exp())

    def __call__(self, rows: Tensor, batch: int, lengths: Tensor) -> Tensor:
        """Rows [B T, D] to new rows; the input is overwritten."""
        rows = self._feed_forward1(rows)
        attended = relative_attention(
            self._attention_in(rows).view(batch, -1, 3 * rows.shape[1]),
            lengths,
            self._distances,
            self._content_shift,
        )
        rows = self._attention_out(rows, attended.view_as(rows))
        rows = self._conv(rows, batch, lengths)
        rows = self._feed_forward2(rows)
        return basic_norm(rows, self._missing, self._epsilon)


def _attention_in(attention: RelativeAttention, missing: Tensor, like: Tensor) -> Projection:
    """The projection to queries, keys and values in one product. Queries are prepared for the product with distances:
    divided by the square root of the head's dimension, with `pos_bias_v` added."""
    dim, scale = attention.dim, attention.head_dim**-0.5
    layer = nn.Linear(dim, 3 * dim)
    weight, bias = attention.in_proj.weight.detach().clone(), attention.in_proj.bias.detach().clone()
    weight[:dim] *= scale
    bias[:dim] = bias[:dim] * scale + attention.pos_bias_v.detach().flatten()
    layer.load_state_dict({"weight": weight, "bias": bias})
    return Projection.of(layer, missing=missing, like=like)


def _linear_layers(module: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    up, _, down = module
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    return up, down
