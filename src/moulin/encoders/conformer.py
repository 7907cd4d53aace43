"""Icefall's reworked Conformer: pruned_transducer_stateless2 to 6, offline and streaming.

It differs from the paper's Conformer in having one normalisation, at the end of each layer (BasicNorm, no LayerNorm and
no BatchNorm), and in its activation (DoubleSwish). Tensors are [N, T, D]: batch, time, channels.

stateless5 trains with the outputs of several layers mixed (RandomCombine, in its first version with parameters). In
inference that mix is the last layer's output, so it is not implemented here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from moulin.encoders.activations import DoubleSwish
from moulin.encoders.encoder import Encoder, EncoderState, StreamingLayout
from moulin.encoders.norms import BasicNorm
from moulin.encoders.recipe import NOTHING_SAID, Recipe, per_stack
from moulin.encoders.relative_shift import by_source
from moulin.encoders.subsampling import Conv2dSubsampling, SubsamplingConfig, count_layers, feed_forward
from moulin.encoders.tensors import expect_shape, load_tensors

# The sizes in stateless5/export-onnx-streaming.py and the recipes' streaming_decode.py, in encoder frames of 40 ms.
CHUNK_SIZE = 16
LEFT_CONTEXT = 64
RIGHT_CONTEXT = 0

# The value of masked scores. Finite, also in half precision, so that a row that is masked entirely gives no NaN; after
# the softmax of any other row a masked score is exactly 0.
_MASKED = -3e4


@dataclass(frozen=True, slots=True)
class ConformerConfig:
    """`hidden`: channels within the feed-forward modules. `kernel`: length of the depthwise convolutions in frames.

    `causal`: whether these convolutions are causal in `forward` (Icefall's `--causal-convolution`).
    """

    num_layers: int = 12
    dim: int = 512
    num_heads: int = 8
    hidden: int = 2048
    kernel: int = 31
    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)
    causal: bool = False

    def __post_init__(self) -> None:
        if self.dim % 2 or self.dim % self.num_heads:
            raise ValueError(f"expected channels that are even and divide into {self.num_heads} heads, got {self.dim}")
        if self.kernel % 2 == 0:
            raise ValueError(f"expected convolutions over an odd number of frames, got {self.kernel}")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> ConformerConfig:
        """The sizes of `tensors`; those of the first layer are taken for all layers. Raises ValueError."""
        layer = "encoder.layers.0"
        dim, _ = expect_shape(tensors, "encoder_embed.out.weight", (None, None))
        num_heads, _ = expect_shape(tensors, f"{layer}.self_attn.pos_bias_u", (None, None))
        hidden, _ = expect_shape(tensors, f"{layer}.feed_forward.0.weight", (None, dim))
        _, _, kernel = expect_shape(tensors, f"{layer}.conv_module.depthwise_conv.weight", (dim, 1, None))
        if recipe.num_heads is not None and per_stack("num_heads", recipe.num_heads, 1) != (num_heads,):
            raise ValueError(
                f"expected {num_heads} heads, as in the shape of '{layer}.self_attn.pos_bias_u', "
                f"num_heads says {recipe.num_heads[0]}"
            )
        subsampling = SubsamplingConfig.from_tensors(tensors, 1, recipe)
        return cls(count_layers(tensors), dim, num_heads, hidden, kernel, subsampling, recipe.causal or False)


class Conformer(Encoder):
    """A convolutional subsampling by four, and Conformer layers (pruned_transducer_stateless5/conformer.py).

    `forward` attends to whole utterances, also in models trained with chunks.
    """

    family = "conformer"

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = config.subsampling.feature_dim
        self.output_dim = config.dim
        self.encoder_embed = Conv2dSubsampling(config.subsampling, config.dim)
        self.encoder = ConformerLayers(config)
        self.eval()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """See the base class. Tensors do not show whether a model was trained with causal convolutions, as streaming
        models are: `recipe.causal` sets it for `forward`. `streaming_forward` is always causal."""
        encoder = cls(ConformerConfig.from_tensors(tensors, recipe))
        encoder.recipe = recipe
        load_tensors(encoder, tensors)
        return encoder

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class. T' = (T - 3) // 4, which is Icefall's ((T - 1) // 2 - 1) // 2."""
        x = self.encoder_embed(x)
        lengths = self.encoder_embed.lengths(x_lens)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths.unsqueeze(1)
        positions = relative_positions(x.shape[1], x.shape[1], self.output_dim, x)
        return self.encoder(x, positions, padding), lengths

    def offline_metadata(self) -> Mapping[str, str]:
        return {**self.identity(), "comment": "stateless3"}

    def streaming_layout(
        self, chunk_size: int | None = None, left_context_frames: int | None = None
    ) -> StreamingLayout:
        """See the base class. Both are counted in encoder frames of 40 ms, 16 and 64 by default. `recipe.right_context`
        (0 by default) is the number of encoder frames of the next chunk that a window contains too: attention and
        convolutions use them, the window's output and states leave them out."""
        said = self.recipe
        if said.causal is False:
            raise ValueError("this Conformer was not trained for streaming: its convolutions are not causal")
        chunk = next(size for size in (chunk_size, said.chunk_size, CHUNK_SIZE) if size is not None)
        left = next(size for size in (left_context_frames, said.left_context_frames, LEFT_CONTEXT) if size is not None)
        right = self.right_context
        if chunk < 1 or left < 1:
            raise ValueError(f"expected chunks and a left context of at least one frame, got {chunk} and {left}")
        if right < 0:
            raise ValueError(f"expected a right context of 0 frames or more, got {right}")
        layers, dim, past = self.config.num_layers, self.config.dim, self.config.kernel - 1
        # The subsampling needs 3 more frames than four times its output, whose first and last vectors are dropped.
        pad_length = 3 + (2 + right) * 4
        return StreamingLayout(
            window_frames=4 * chunk + pad_length,
            chunk_frames=4 * chunk,
            states=(
                EncoderState("cached_attn", (layers, left, dim), batch_axis=2),
                EncoderState("cached_conv", (layers, past, dim), batch_axis=2),
                EncoderState("processed_lens", (), batch_axis=0, dtype=torch.int64, increment=chunk),
            ),
            metadata={
                **self.identity(),
                "comment": "stateless5",
                "pad_length": str(pad_length),
                "decode_chunk_len": str(4 * chunk),
                "encoder_dim": str(dim),
                "num_encoder_layers": str(layers),
                "cnn_module_kernel": str(self.config.kernel),
                "left_context": str(left),
                "right_context": str(right),
                "chunk_size": str(chunk),
                "T": str(4 * chunk + pad_length),
            },
        )

    def streaming_forward(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See the base class. States: the layers' attention inputs [N, L, left, D], their convolutions' inputs
        [N, L, kernel - 1, D], and int64 [N] encoder frames so far, as in Icefall (sherpa-onnx adds feature frames).

        In a trace only N stays dynamic. The sizes of chunk and left context become constants, and with them the encoded
        distances and their projections; torch warns about it (TracerWarning).
        """
        cached_attn, cached_conv, processed_lens = states
        # The first and last vectors were computed with zeros instead of the frames before and after the window.
        x = self.encoder_embed(x)[:, 1:-1]
        frames, left = int(x.shape[1]), int(cached_attn.shape[2])
        chunk = frames - self.right_context
        # At the beginning of a stream part of the left context does not exist. Frames of the chunk have age <= 0.
        age = left - torch.arange(left + frames, device=x.device)
        unheard = age > processed_lens.unsqueeze(1)
        positions = relative_positions(frames, left + frames, self.output_dim, x)
        x, cached_attn, cached_conv = self.encoder.step(x, positions, unheard, cached_attn, cached_conv, chunk)
        return x[:, :chunk], [cached_attn, cached_conv, processed_lens + chunk]

    @property
    def right_context(self) -> int:
        """Encoder frames of the next chunk that a window contains too."""
        return RIGHT_CONTEXT if self.recipe.right_context is None else self.recipe.right_context


class ConformerLayers(nn.Module):
    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        """[N, T, D] to [N, T, D]; `positions` from `relative_positions`, `padding` bool [N, T] true for padding."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        return x

    def step(
        self, x: Tensor, positions: Tensor, unheard: Tensor, cached_attn: Tensor, cached_conv: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One window: frames [N, T, D] after `left` cached ones; its first `chunk` frames enter the caches. `unheard`
        bool [N, left + T] is true for positions before the stream's beginning. Returns the output frames and the two
        caches, shaped as in `Conformer.streaming_forward`."""
        attn, conv = list(cached_attn.unbind(1)), list(cached_conv.unbind(1))
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, ConformerLayer)
            x, attn[i], conv[i] = layer.step(x, positions, unheard, attn[i], conv[i], chunk)
        return x, torch.stack(attn, dim=1), torch.stack(conv, dim=1)


class ConformerLayer(nn.Module):
    """A feed-forward module, attention, convolution, a feed-forward module, each added to its input, and one
    normalisation. Unlike in the paper the feed-forward outputs are not halved."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.feed_forward_macaron = feed_forward(config.dim, config.hidden)
        self.self_attn = RelativeAttention(config.dim, config.num_heads)
        self.conv_module = ConvolutionModule(config.dim, config.kernel, config.causal)
        self.feed_forward = feed_forward(config.dim, config.hidden)
        self.norm_final = BasicNorm()

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        x = x + self.feed_forward_macaron(x)
        x = x + self.self_attn(x, x, positions, padding)
        x = x + self.conv_module(x, padding)
        x = x + self.feed_forward(x)
        return self.norm_final(x)  # type: ignore[no-any-return]

    def step(
        self, x: Tensor, positions: Tensor, unheard: Tensor, cached_attn: Tensor, cached_conv: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`ConformerLayers.step` of one layer, with its caches [N, left, D] and [N, kernel - 1, D]."""
        left = cached_attn.shape[1]
        x = x + self.feed_forward_macaron(x)
        # The cache holds inputs of the projection to keys and values: half the memory, at the cost of projecting the
        # past again in every chunk.
        memory = torch.cat([cached_attn, x], dim=1)
        x = x + self.self_attn(x, memory, positions, unheard)
        mixed, cached_conv = self.conv_module.step(x, cached_conv, chunk)
        x = x + mixed
        x = x + self.feed_forward(x)
        return self.norm_final(x), memory[:, chunk : chunk + left], cached_conv


class RelativeAttention(nn.Module):
    """Attention by content and distance (Transformer-XL, appendix B): softmax((q + u) k + (q + v) p) for queries q,
    keys k, encoded distances p and learned u, v."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(num_heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(num_heads, self.head_dim))

    def forward(self, x: Tensor, memory: Tensor, positions: Tensor, masked: Tensor) -> Tensor:
        """Attention of x [N, T, D] to memory [N, S, D], whose last frames are x. `positions` [S + T - 1, D] come from
        `relative_positions`; `masked` bool [N, S] is true for frames not to attend to."""
        weight, bias, dim = self.in_proj.weight, self.in_proj.bias, self.dim
        query = self._split(functional.linear(x, weight[:dim], bias[:dim])) * self.head_dim**-0.5
        key, value = functional.linear(memory, weight[dim:], bias[dim:]).chunk(2, dim=-1)
        content = (query + self.pos_bias_u.unsqueeze(1)) @ self._split(key).transpose(2, 3)
        distance = self._split(self.linear_pos(positions).unsqueeze(0))
        place = by_source((query + self.pos_bias_v.unsqueeze(1)) @ distance.transpose(2, 3))
        scores = content + place
        weights = scores.masked_fill(masked.unsqueeze(1).unsqueeze(1), _MASKED).softmax(dim=-1)
        return self.out_proj((weights @ self._split(value)).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """[N, T, D] to [N, heads, T, D / heads]."""
        return x.reshape(x.shape[0], -1, self.num_heads, self.head_dim).transpose(1, 2)


class ConvolutionModule(nn.Module):
    """A gated linear unit, a depthwise convolution over time, and a projection."""

    def __init__(self, dim: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.dim, self.kernel, self.causal = dim, kernel, causal
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.activation = DoubleSwish()
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """[N, T, D] to [N, T, D]; frames marked in `padding` bool [N, T] count as zeros."""
        gated = self._gate(x).masked_fill(padding.unsqueeze(1), 0.0)
        if self.causal:
            # Zeros on both sides, which is one operator; the frames computed from those on the right are cut off.
            return self._mix(gated, padding=self.kernel - 1)[:, : x.shape[1]]
        return self._mix(gated, padding=self.kernel // 2)

    def step(self, x: Tensor, cache: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """The output of one window, and the next cache. `cache` [N, kernel - 1, D] has the kernel - 1 gated frames
        before the window; the next window begins `chunk` frames later."""
        gated = torch.cat([cache.transpose(1, 2), self._gate(x)], dim=2)
        return self._mix(gated), gated[:, :, chunk : chunk + self.kernel - 1].transpose(1, 2)

    def _gate(self, x: Tensor) -> Tensor:
        """[N, T, D] to [N, D, T]."""
        return functional.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)

    def _mix(self, gated: Tensor, padding: int = 0) -> Tensor:
        """[N, D, T] to [N, T + 2 * padding - kernel + 1, D]."""
        conv = self.depthwise_conv
        x = functional.conv1d(gated, conv.weight, conv.bias, padding=padding, groups=self.dim)
        return self.pointwise_conv2(self.activation(x)).transpose(1, 2)  # type: ignore[no-any-return]


def relative_positions(queries: int, keys: int, dim: int, like: Tensor) -> Tensor:
    """Encodings of the distances from `keys` frames to the last `queries` of them, [keys + queries - 1, dim]: from
    keys - 1 frames ago to queries - 1 frames ahead, with the dtype and device of `like`.

    Sines in the even channels, cosines in the odd ones. Computed in float32 for any `like`, and without a table, so
    that the length of utterances is not limited.
    """
    distance = (keys - 1 - torch.arange(keys + queries - 1, device=like.device)).float().unsqueeze(1)
    frequency = torch.exp(torch.arange(0, dim, 2, device=like.device).float() * -(math.log(10000.0) / dim))
    angle = distance * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)
