"""Icefall's Zipformer2 (recipe `zipformer`: zipformer.py and subsampling.py), called Zipformer in its paper.

Features at 100 Hz become embeddings at 50 Hz, which pass through stacks of layers at different frame rates: each stack
first takes a learned average of every `downsampling_factor` frames, and afterwards repeats its output as often. The
output of all stacks is averaged over every two frames, to 25 Hz.

Peculiarities: a layer computes its attention weights once, and three modules use them (`NonlinAttention` only those of
the first head); each layer and each stack adds only a learned share of its change, channel by channel (`Bypass`); and
stacks differ in width, so that channels are cut off or filled with zeros between them.

A causal model runs in two ways: over whole utterances as one chunk each, and chunk by chunk, where a layer keeps keys,
values and convolution inputs of the frames before (`LayerState`). Both use the same modules, whose `past` is None for
whole utterances. N is the batch, T the number of frames, K the number of frames attended to: T and those of `past`.
Tensors are [N, T, channels].

All modules export with torch.onnx.export, with the batch and T dynamic: no branch depends on a tensor.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from moulin.encoders.activations import SwooshL, SwooshR
from moulin.encoders.encoder import Encoder, EncoderState, StreamingLayout
from moulin.encoders.head_split import POS_HEAD_DIM, HeadProducts, choose_heads
from moulin.encoders.norms import BiasNorm
from moulin.encoders.recipe import NOTHING_SAID, Recipe, feature_dim_of
from moulin.encoders.relative_shift import by_source
from moulin.encoders.tensors import expect_shape, load_tensors

# One of the sizes that zipformer/train.py trains with by default; frames are counted at 50 Hz.
CHUNK_SIZE = 16
LEFT_CONTEXT_FRAMES = 128

OUTPUT_DOWNSAMPLING = 2
CONVNEXT_PADDING = 3

# A masked score: zero after the softmax, and unlike -inf no NaN where a whole row is masked.
MASKED_SCORE = -1000.0


@dataclass(frozen=True, slots=True)
class Zipformer2Config:
    """Sizes, counted as in the options of zipformer/train.py. Every tuple has one entry for each stack."""

    num_layers: tuple[int, ...]
    downsampling_factors: tuple[int, ...]
    encoder_dims: tuple[int, ...]
    num_heads: tuple[int, ...]
    query_head_dims: tuple[int, ...]
    value_head_dims: tuple[int, ...]
    feedforward_dims: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    pos_dim: int = 48
    pos_head_dims: tuple[int, ...] = ()
    """Empty for the default, 4 in each stack."""
    causal: bool = False
    feature_dim: int = 80
    embed_channels: tuple[int, int, int] = (8, 32, 128)

    def __post_init__(self) -> None:
        if not self.pos_head_dims:
            object.__setattr__(self, "pos_head_dims", (POS_HEAD_DIM,) * len(self.num_heads))

    @property
    def embed_bands(self) -> int:
        """Frequency bands after the convolutions of the embedding: 19 for 80 feature channels."""
        return ((self.feature_dim - 1) // 2 - 1) // 2


class LayerState(NamedTuple):
    """A layer's states from the frames before a chunk, in the order of Icefall's export."""

    key: Tensor  # [N, left, heads * query_head_dim]
    nonlin: Tensor  # [N, 1, left, 3/4 dim]
    value1: Tensor  # [N, left, heads * value_head_dim]
    value2: Tensor
    conv1: Tensor  # [N, dim, kernel // 2]
    conv2: Tensor


States = list[LayerState]


class ConvNeXt(nn.Module):
    """x plus a two-layer network at each point over its 7x7 neighbourhood; x is [N, channels, T, bands]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=CONVNEXT_PADDING, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.activation = SwooshL()
        self.pointwise_conv2 = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output, and the frames before the next chunk.

        A chunk has 3 extra frames at its end as context of the convolution; the next chunk begins with them.
        """
        if past is None:
            frames, around = x, self.depthwise_conv(x)
        else:
            frames = x[:, :, :-CONVNEXT_PADDING]
            x = torch.cat((past, x), dim=2)
            past = x[:, :, -2 * CONVNEXT_PADDING : -CONVNEXT_PADDING]
            conv = self.depthwise_conv
            around = functional.conv2d(x, conv.weight, conv.bias, padding=(0, CONVNEXT_PADDING), groups=conv.groups)
        out = frames + self.pointwise_conv2(self.activation(self.pointwise_conv1(around)))
        return out, frames if past is None else past


class ConvEmbedding(nn.Module):
    """Features [N, T, feature_dim] to embeddings of the first stack's width, [N, (T - 7) // 2, dim].

    A chunk gives 3 fewer: its last 3 frames are `ConvNeXt`'s right context.
    """

    def __init__(self, config: Zipformer2Config) -> None:
        super().__init__()
        one, two, three = config.embed_channels
        # Numbered as in Icefall, where modules used only in training lie between these.
        modules: dict[str, nn.Module] = {
            "0": nn.Conv2d(1, one, 3, padding=(0, 1)),  # [time, frequency]
            "3": SwooshR(),
            "4": nn.Conv2d(one, two, 3, stride=2),
            "6": SwooshR(),
            "7": nn.Conv2d(two, three, 3, stride=(1, 2)),
            "9": SwooshR(),
        }
        self.conv = nn.Sequential(OrderedDict(modules))
        self.convnext = ConvNeXt(three)
        self.out = nn.Linear(three * config.embed_bands, config.encoder_dims[0])
        self.out_norm = BiasNorm(config.encoder_dims[0])

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        x, past = self.convnext(self.conv(x.unsqueeze(1)), past)
        return self.out_norm(self.out(x.transpose(1, 2).flatten(2))), past


class AttentionWeights(nn.Module):
    """Attention weights: softmax(query · key + positional query · projected distance), [N, heads, T, K].

    Scores are not divided by the square root of the head's dimension; the weights have learned that scale.
    """

    def __init__(self, config: Zipformer2Config, stack: int) -> None:
        super().__init__()
        self._heads = config.num_heads[stack]
        query, position = self._heads * config.query_head_dims[stack], self._heads * config.pos_head_dims[stack]
        self._widths = [query, query, position]
        self.in_proj = nn.Linear(config.encoder_dims[stack], sum(self._widths))
        self.linear_pos = nn.Linear(config.pos_dim, position, bias=False)

    def forward(self, x: Tensor, distances: Tensor, masked: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """`distances` are `encoded_distances`, [T + K - 1, pos_dim]; `masked` [N, K] is true for frames to ignore."""
        query, key, position = self.in_proj(x).split(self._widths, dim=-1)
        key, present = append(past, key, 1)
        scores = split_heads(query, self._heads) @ split_heads(key, self._heads).transpose(2, 3)
        distance = split_heads(self.linear_pos(distances).unsqueeze(0), self._heads).transpose(2, 3)
        scores = scores + by_source(split_heads(position, self._heads) @ distance)
        return scores.masked_fill(masked[:, None, None, :], MASKED_SCORE).softmax(dim=-1), present


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self._heads = heads
        self.in_proj = nn.Linear(dim, heads * head_dim)
        self.out_proj = nn.Linear(heads * head_dim, dim)

    def forward(self, x: Tensor, weights: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        values, present = append(past, self.in_proj(x), 1)
        mixed = weights @ split_heads(values, self._heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), present


class NonlinAttention(nn.Module):
    """Attention of one head between two gates: out_proj(y * (weights @ (tanh(s) * x)))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._hidden = 3 * dim // 4
        self.in_proj = nn.Linear(dim, 3 * self._hidden)
        self.out_proj = nn.Linear(self._hidden, dim)

    def forward(self, x: Tensor, weights: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """`weights` are those of one head, [N, 1, T, K]."""
        s, x, y = self.in_proj(x).split(self._hidden, dim=-1)
        gated, present = append(past, (x * s.tanh()).unsqueeze(1), 2)
        return self.out_proj((weights @ gated).squeeze(1) * y), present


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden)
        self.activation = SwooshL()
        self.out_proj = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_proj(self.activation(self.in_proj(x)))
        return out


class ChunkCausalConv1d(nn.Module):
    """A depthwise convolution whose left context may reach into earlier chunks and whose right context ends with its
    chunk.

    It is the sum of a causal convolution and one within the chunk. As the latter lacks the frames beyond the chunk's
    edges, its output near them is scaled by 1 plus `chunkwise_conv_scale`, [0] in the first `kernel` frames of a chunk
    and [1] in the last.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self._left = kernel // 2
        self.causal_conv = nn.Conv1d(dim, dim, (kernel + 1) // 2, groups=dim)
        self.chunkwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, dim, kernel))

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x is one chunk, [N, dim, T]."""
        whole, present = (functional.pad(x, (self._left, 0)), x) if past is None else append(past, x, 2)
        return self.causal_conv(whole) + self.chunkwise_conv(x) * self._edge_scale(x), present

    def _edge_scale(self, x: Tensor) -> Tensor:
        """Factors [dim, T]. Icefall's graph branches on a chunk shorter than the kernel; this covers both cases."""
        frames = x.shape[2]
        left, right = self.chunkwise_conv_scale[0], self.chunkwise_conv_scale[1]
        zeros = torch.zeros_like(x[0])
        return 1.0 + torch.cat((left, zeros), dim=1)[:, :frames] + torch.cat((zeros, right), dim=1)[:, -frames:]


class ConvModule(nn.Module):
    def __init__(self, dim: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.depthwise_conv = (
            ChunkCausalConv1d(dim, kernel) if causal else nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        )
        self.activation = SwooshR()
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, masked: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        x = functional.glu(self.in_proj(x), dim=-1).transpose(1, 2)
        if past is None:  # a chunk has no padding
            x = x.masked_fill(masked[:, None, :], 0.0)
        present = x
        if isinstance(self.depthwise_conv, ChunkCausalConv1d):
            x, present = self.depthwise_conv(x, past)
        else:
            x = self.depthwise_conv(x)
        return self.out_proj(self.activation(x.transpose(1, 2))), present


class Bypass(nn.Module):
    """Interpolation between a module's input and output by a learned factor for each channel; 0 keeps the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return before + (after - before) * self.bypass_scale


class Layer(nn.Module):
    def __init__(self, config: Zipformer2Config, stack: int) -> None:
        super().__init__()
        dim, hidden, kernel = config.encoder_dims[stack], config.feedforward_dims[stack], config.conv_kernels[stack]
        heads, value_dim = config.num_heads[stack], config.value_head_dims[stack]
        self.self_attn_weights = AttentionWeights(config, stack)
        self.feed_forward1 = FeedForward(dim, hidden * 3 // 4)
        self.nonlin_attention = NonlinAttention(dim)
        self.self_attn1 = SelfAttention(dim, heads, value_dim)
        self.conv_module1 = ConvModule(dim, kernel, config.causal)
        self.feed_forward2 = FeedForward(dim, hidden)
        self.bypass_mid = Bypass(dim)
        self.self_attn2 = SelfAttention(dim, heads, value_dim)
        self.conv_module2 = ConvModule(dim, kernel, config.causal)
        self.feed_forward3 = FeedForward(dim, hidden * 5 // 4)
        self.norm = BiasNorm(dim)
        self.bypass = Bypass(dim)

    def forward(
        self, x: Tensor, distances: Tensor, masked: Tensor, past: LayerState | None
    ) -> tuple[Tensor, LayerState]:
        """The output and the next state; for whole utterances the state is unused."""
        before = x
        key, nonlin, value1, value2, conv1, conv2 = past or (None,) * 6
        weights, key = self.self_attn_weights(x, distances, masked, key)

        x = x + self.feed_forward1(x)
        change, nonlin = self.nonlin_attention(x, weights[:, :1], nonlin)
        x = x + change
        change, value1 = self.self_attn1(x, weights, value1)
        x = x + change
        change, conv1 = self.conv_module1(x, masked, conv1)
        x = x + change
        x = x + self.feed_forward2(x)
        x = self.bypass_mid(before, x)

        change, value2 = self.self_attn2(x, weights, value2)
        x = x + change
        change, conv2 = self.conv_module2(x, masked, conv2)
        x = x + change
        x = x + self.feed_forward3(x)
        x = self.bypass(before, self.norm(x))
        return x, LayerState(key, nonlin, value1, value2, conv1, conv2)


class Stack(nn.Module):
    """Layers of one width at one frame rate."""

    def __init__(self, config: Zipformer2Config, stack: int) -> None:
        super().__init__()
        self._pos_dim = config.pos_dim
        self.layers = nn.ModuleList(Layer(config, stack) for _ in range(config.num_layers[stack]))

    def forward(self, x: Tensor, masked: Tensor, past: States | None) -> tuple[Tensor, States]:
        """`masked` [N, K] is true for padding and for frames before the beginning of the stream."""
        distances = encoded_distances(x, masked.shape[1], self._pos_dim)
        states: States = []
        for index, layer in enumerate(self.layers):
            x, state = layer(x, distances, masked, None if past is None else past[index])
            if past is not None:
                states.append(state)
        return x, states


class Downsample(nn.Module):
    """A learned average of every `factor` frames; the last frame is repeated to fill the last group."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self._factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor) -> Tensor:
        frames = x[:, :: self._factor].shape[1]  # ceil(T / factor) without a division in the exported graph
        x = torch.cat((x, *[x[:, -1:]] * (self._factor - 1)), dim=1)
        groups = x[:, : frames * self._factor].reshape(x.shape[0], frames, self._factor, -1)
        return (groups * self.bias.softmax(dim=0)[:, None]).sum(dim=2)


class DownsampledStack(nn.Module):
    """A stack at a lower frame rate, between downsampling by averaging and upsampling by repetition."""

    def __init__(self, config: Zipformer2Config, stack: int) -> None:
        super().__init__()
        self._factor = config.downsampling_factors[stack]
        self.downsample = Downsample(self._factor)
        self.encoder = Stack(config, stack)
        self.out_combiner = Bypass(config.encoder_dims[stack])

    def forward(self, x: Tensor, masked: Tensor, past: States | None) -> tuple[Tensor, States]:
        after, states = self.encoder(self.downsample(x), masked[:, :: self._factor], past)
        repeated = torch.cat([after] * self._factor, dim=2).reshape(x.shape[0], -1, x.shape[2])
        return self.out_combiner(x, repeated[:, : x.shape[1]]), states


class Stacks(nn.Module):
    """All stacks in sequence, and a learned average of every 2 frames of their output."""

    def __init__(self, config: Zipformer2Config) -> None:
        super().__init__()
        self._dims = config.encoder_dims
        self.encoders = nn.ModuleList(
            Stack(config, stack) if factor == 1 else DownsampledStack(config, stack)
            for stack, factor in enumerate(config.downsampling_factors)
        )
        self._num_layers = config.num_layers
        self.downsample_output = Downsample(OUTPUT_DOWNSAMPLING)

    def forward(self, x: Tensor, masked: Tensor, past: States | None) -> tuple[Tensor, States]:
        """Embeddings at 50 Hz [N, T, first width] to frames at 25 Hz [N, ceil(T / 2), greatest width]."""
        outputs: list[Tensor] = []
        states: States = []
        first = 0
        width = self._dims[0]
        for stack, dim, layers in zip(self.encoders, self._dims, self._num_layers, strict=True):
            x = fit_channels(x, width, dim)
            x, new_states = stack(x, masked, None if past is None else past[first : first + layers])
            first, width = first + layers, dim
            outputs.append(x)
            states += new_states
        return self.downsample_output(self._widest(outputs)), states

    def _widest(self, outputs: Sequence[Tensor]) -> Tensor:
        """The last stack's output; each channel that it lacks comes from the last stack that has it."""
        pieces, width = [outputs[-1]], self._dims[-1]
        for output, dim in zip(reversed(outputs), reversed(self._dims), strict=True):
            if dim > width:
                pieces.append(output[..., width:dim])
                width = dim
        return torch.cat(pieces, dim=-1) if len(pieces) > 1 else pieces[0]


# A parameter of Icefall's layers that is not used, unlike `bypass` and `bypass_mid`.
_UNUSED = re.compile(r"layers\.\d+\.bypass_scale$")


class Zipformer2(Encoder):
    family = "zipformer2"

    def __init__(self, config: Zipformer2Config) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = config.feature_dim
        self.output_dim = max(config.encoder_dims)
        self.encoder_embed = ConvEmbedding(config)
        self.encoder = Stacks(config)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """See `Encoder`; shapes determine only products of head sizes (`head_split`)."""
        with torch.device("meta"):
            model = cls(infer_config(tensors, recipe))
        model.recipe = recipe
        load_tensors(model.to_empty(device="cpu"), tensors)
        unknown = sorted(name for name in tensors.keys() - model.state_dict().keys() if not _UNUSED.search(name))
        if unknown:
            raise ValueError(f"the tensor '{unknown[0]}' belongs to no Zipformer2 that moulin knows")
        return model

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, _ = self.encoder_embed(x, None)
        # Rounded towards zero as in ONNX's integer division; torch's // would export as several operators.
        lengths = torch.div(x_lens - 7, 2, rounding_mode="trunc")
        padding = torch.arange(embeddings.shape[1], device=x.device) >= lengths[:, None]
        out, _ = self.encoder(embeddings, padding, None)
        return out, torch.div(lengths + 1, 2, rounding_mode="trunc")

    def offline_metadata(self) -> Mapping[str, str]:
        """The metadata that zipformer/export-onnx.py writes."""
        comment = "non-streaming zipformer2"
        return {**self.identity(), "comment": comment}

    def streaming_layout(
        self, chunk_size: int | None = None, left_context_frames: int | None = None
    ) -> StreamingLayout:
        """See `Encoder`; sizes are counted at 50 Hz, after the embedding."""
        config = self.config
        chunk = self.chunk_size if chunk_size is None else chunk_size
        left = self.left_context_frames if left_context_frames is None else left_context_frames
        if not config.causal:
            raise ValueError("this Zipformer2 was not trained for streaming: its convolutions are not causal")
        for what, frames, factors in (
            ("chunk_size", chunk, (OUTPUT_DOWNSAMPLING, *config.downsampling_factors)),
            ("left_context_frames", left, config.downsampling_factors),
        ):
            if frames < 1 or any(frames % factor for factor in factors):
                raise ValueError(f"expected {what} to be a positive multiple of {math.lcm(*factors)}, got {frames}")
        # 7 more frames for the embedding's convolutions and 2 * 3 as ConvNeXt's right context.
        window = 2 * chunk + 7 + 2 * CONVNEXT_PADDING
        lefts = [left // factor for factor in config.downsampling_factors]
        metadata = {
            **self.offline_metadata(),
            "comment": "streaming zipformer2",
            "decode_chunk_len": str(2 * chunk),
            "T": str(window),
            "num_encoder_layers": _listed(config.num_layers),
            "encoder_dims": _listed(config.encoder_dims),
            "cnn_module_kernels": _listed(config.conv_kernels),
            "left_context_len": _listed(lefts),
            "query_head_dims": _listed(config.query_head_dims),
            "value_head_dims": _listed(config.value_head_dims),
            "num_heads": _listed(config.num_heads),
        }
        return StreamingLayout(window, 2 * chunk, tuple(self._states(lefts)), metadata)

    @property
    def chunk_size(self) -> int:
        """The default of `streaming_layout`, as `left_context_frames` is."""
        return CHUNK_SIZE if self.recipe.chunk_size is None else self.recipe.chunk_size

    @property
    def left_context_frames(self) -> int:
        said = self.recipe.left_context_frames
        return LEFT_CONTEXT_FRAMES if said is None else said

    def streaming_forward(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        *layer_states, embed_state, processed = states
        embeddings, embed_state = self.encoder_embed(x, embed_state)
        frames = embeddings.shape[1]
        left = layer_states[0].shape[1] * self.config.downsampling_factors[0]
        # `processed` counts the frames of a stream so far: positions further left are before its beginning.
        masked = torch.arange(left + frames, device=x.device) < (left - processed)[:, None]
        past = [LayerState(*layer_states[first : first + 6]) for first in range(0, len(layer_states), 6)]
        out, present = self.encoder(embeddings, masked, past)
        return out, [*chain.from_iterable(present), embed_state, processed + frames]

    def _states(self, lefts: Sequence[int]) -> list[EncoderState]:
        """`lefts` are the stacks' left contexts in their own frames."""
        config = self.config
        states: list[EncoderState] = []
        layer = 0
        for stack, left in enumerate(lefts):
            dim, heads = config.encoder_dims[stack], config.num_heads[stack]
            key = (left, heads * config.query_head_dims[stack])
            value = (left, heads * config.value_head_dims[stack])
            conv = (dim, config.conv_kernels[stack] // 2)
            for _ in range(config.num_layers[stack]):
                states += [
                    EncoderState(f"cached_key_{layer}", key, 1),
                    EncoderState(f"cached_nonlin_attn_{layer}", (1, left, 3 * dim // 4), 1),
                    EncoderState(f"cached_val1_{layer}", value, 1),
                    EncoderState(f"cached_val2_{layer}", value, 1),
                    EncoderState(f"cached_conv1_{layer}", conv, 0),
                    EncoderState(f"cached_conv2_{layer}", conv, 0),
                ]
                layer += 1
        embed = (config.embed_channels[-1], CONVNEXT_PADDING, config.embed_bands)
        states.append(EncoderState("embed_states", embed, 0))
        states.append(EncoderState("processed_lens", (), 0, dtype=torch.int64))
        return states


def append(past: Tensor | None, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """`past` followed by x, and the next `past`: the end of the two, as long as `past`. Without `past`, x twice."""
    if past is None:
        return x, x
    whole = torch.cat((past, x), dim=axis)
    return whole, whole.narrow(axis, x.shape[axis], past.shape[axis])


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[N, T, heads * dim] to [N, heads, T, dim]."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def fit_channels(x: Tensor, have: int, want: int) -> Tensor:
    """x with its last axis truncated or zero-padded from `have` to `want` channels. Both are constants, so that an
    export has no branch on a shape."""
    if have < want:
        return functional.pad(x, (0, want - have))
    return x[..., :want] if have > want else x


def encoded_distances(x: Tensor, keys: int, pos_dim: int) -> Tensor:
    """Encodings [T + keys - 1, pos_dim] of the distances from x's T frames to `keys` frames, of which the last T are
    x's own: from -(keys - 1) to T - 1, negative for the past.

    The distance is compressed to an angle, by a logarithm, which resolves near frames better than far ones, and by an
    arctangent, which bounds it; the encoding is a Fourier series of the angle, whose last term is a constant.
    """
    distance = (torch.arange(x.shape[1] + keys - 1, device=x.device) - (keys - 1)).float()
    near = math.sqrt(pos_dim)  # up to about this distance the logarithm is nearly linear
    squeezed = near * distance.sign() * torch.log(distance.abs() / near + 1.0)
    angle = torch.atan(squeezed * (2.0 * math.pi / pos_dim))
    angles = angle[:, None] * torch.arange(1, pos_dim // 2 + 1, device=x.device)
    terms = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
    return torch.cat((terms[:, :-1], torch.ones_like(terms[:, :1])), dim=1).to(x.dtype)


def infer_config(tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Zipformer2Config:
    """The sizes of a checkpoint. Raises ValueError where one is impossible or contradicts `recipe`."""
    causal = any(".causal_conv." in name for name in tensors)
    if recipe.causal not in (None, causal):
        with_or_without = "" if causal else "no "
        raise ValueError(f"causal says {recipe.causal}, and its tensors have {with_or_without}causal convolutions")
    stacks = [_stack_sizes(tensors, index, causal) for index in range(_count(tensors, "encoder.encoders."))]
    layers, factors, dims, hidden, kernels = zip(*stacks, strict=True)
    products = head_products(tensors)
    heads = choose_heads(products, recipe)
    split = [stack.head_dims(number) for stack, number in zip(products, heads, strict=True)]
    query_dims, pos_dims, value_dims = zip(*split, strict=True)
    first_layers, _ = _layers(tensors, 0)
    _, pos_dim = expect_shape(tensors, f"{first_layers}0.self_attn_weights.linear_pos.weight", (None, None))
    one, two, three = (_length(tensors, f"encoder_embed.conv.{index}.bias") for index in (0, 4, 7))
    _, bands = expect_shape(tensors, "encoder_embed.out.weight", (None, None))
    return Zipformer2Config(
        num_layers=layers,
        downsampling_factors=factors,
        encoder_dims=dims,
        num_heads=heads,
        query_head_dims=query_dims,
        value_head_dims=value_dims,
        feedforward_dims=hidden,
        conv_kernels=kernels,
        pos_dim=pos_dim,
        pos_head_dims=pos_dims,
        causal=causal,
        feature_dim=feature_dim_of(recipe, 4 * (bands // three) + 3),
        embed_channels=(one, two, three),
    )


def head_products(tensors: Mapping[str, Tensor]) -> list[HeadProducts]:
    """Each stack's head products. Raises ValueError where a tensor is missing or has an impossible shape."""
    products = []
    for index in range(_count(tensors, "encoder.encoders.")):
        layers, _ = _layers(tensors, index)
        layer = f"{layers}0."
        rows, _ = expect_shape(tensors, f"{layer}self_attn_weights.linear_pos.weight", (None, None))
        in_proj = f"{layer}self_attn_weights.in_proj.bias"
        query = _divided(_length(tensors, in_proj) - rows, 2, in_proj)
        products.append(HeadProducts(query, rows, _length(tensors, f"{layer}self_attn1.in_proj.bias")))
    return products


def _stack_sizes(tensors: Mapping[str, Tensor], index: int, causal: bool) -> tuple[int, ...]:
    """A stack's layers, downsampling factor, width, hidden width and kernel."""
    layers, wrapped = _layers(tensors, index)
    layer = f"{layers}0."
    conv = f"{layer}conv_module1.depthwise_conv.{'chunkwise_conv.' if causal else ''}weight"
    *_, kernel = expect_shape(tensors, conv, (None, 1, None))
    if kernel % 2 == 0:
        raise ValueError(f"expected the tensor '{conv}' to have an odd kernel, got {kernel}")
    return (
        _count(tensors, layers),
        _length(tensors, f"encoder.encoders.{index}.downsample.bias") if wrapped else 1,
        _length(tensors, f"{layer}norm.bias"),
        _length(tensors, f"{layer}feed_forward2.in_proj.bias"),
        kernel,
    )


def _layers(tensors: Mapping[str, Tensor], index: int) -> tuple[str, bool]:
    """The prefix of a stack's layers, and whether the stack is wrapped for a lower frame rate."""
    stack = f"encoder.encoders.{index}."
    wrapped = any(name.startswith(f"{stack}encoder.") for name in tensors)
    return f"{stack}encoder.layers." if wrapped else f"{stack}layers.", wrapped


def _length(tensors: Mapping[str, Tensor], bias: str) -> int:
    (length,) = expect_shape(tensors, bias, (None,))
    return _divided(length, 1, bias)


def _divided(size: int, divisor: int, name: str) -> int:
    if size < 1 or size % divisor:
        raise ValueError(f"expected a multiple of {divisor} in the tensor '{name}', got {size}")
    return size // divisor


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """The number of modules numbered after `prefix`, at least 1: where there are none, the first one's tensors will be
    reported as missing."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}) or 1


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
