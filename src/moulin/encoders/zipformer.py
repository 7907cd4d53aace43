"""Zipformer, the first version: stacks at several frame rates between one embedding and one output.

Icefall's pruned_transducer_stateless7/zipformer.py for whole utterances and pruned_transducer_stateless7_streaming/
zipformer.py for streams, in inference only.

    features 100 Hz ─ encoder_embed ─ 50 Hz ─ stack 0 ─ stack 1 ─ … ─ downsample_output ─ 25 Hz

Every stack but the first downsamples to its own frame rate, runs its layers, upsamples, and adds the result to its
input. Where the frame rate rises from one stack to the next, an earlier stack's output is mixed in (`skip_modules`).

The two recipes have the same parameters and differ in a frame's context: the offline one has symmetric convolutions and
adds the mean of the whole utterance; the streaming one has causal convolutions and adds the mean of all frames so far.

Shapes: N utterances or streams, T frames at the current frame rate, D channels, H heads, A channels of all queries,
`left` frames before a chunk, K = left + T keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from moulin.encoders.activations import DoubleSwish
from moulin.encoders.encoder import Encoder, EncoderState, StreamingLayout
from moulin.encoders.norms import BasicNorm
from moulin.encoders.recipe import NOTHING_SAID, Recipe, feature_dim_of, per_stack
from moulin.encoders.relative_shift import by_source
from moulin.encoders.tensors import expect_shape, load_tensors

_Item = TypeVar("_Item")

# Sizes that are fixed in the recipes.
_EMBED_CHANNELS = (8, 32, 128)
_OUTPUT_DOWNSAMPLING = 2
NUM_LEFT_CHUNKS = 4
DECODE_CHUNK_LEN = 32
_POS_DIM = 4


class _StackSizes(NamedTuple):
    """The sizes of one stack, in the order of `ZipformerConfig`."""

    num_layers: int
    dim: int
    attention_dim: int
    nhead: int
    feedforward_dim: int
    kernel: int
    factor: int


@dataclass(frozen=True, slots=True)
class ZipformerConfig:
    """The sizes of a Zipformer; tuples have one entry for each stack.

    `downsampling_factors` are relative to the 50 Hz after the embedding. `pos_dim` is the size of a head's positional
    query. Raises ValueError for an impossible network.
    """

    num_encoder_layers: tuple[int, ...]
    encoder_dims: tuple[int, ...]
    attention_dims: tuple[int, ...]
    nhead: tuple[int, ...]
    feedforward_dims: tuple[int, ...]
    cnn_module_kernels: tuple[int, ...]
    downsampling_factors: tuple[int, ...]
    feature_dim: int = 80
    pos_dim: int = 4

    def __post_init__(self) -> None:
        input_dim = self.encoder_dims[0]
        for i, stack in enumerate(self.stacks):
            _expect(stack.kernel % 2 == 1, f"an odd kernel in stack {i}", stack.kernel)
            _expect(stack.dim % 2 == 0, f"an even number of channels in stack {i}", stack.dim)
            _expect(
                stack.attention_dim % (2 * stack.nhead) == 0, f"even sizes of {stack.nhead} heads", stack.attention_dim
            )
            fits = stack.dim >= input_dim if stack.factor > 1 else stack.dim == input_dim
            _expect(fits, f"a stack {i} that can follow one of {input_dim} channels", stack.dim)
            input_dim = stack.dim

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> ZipformerConfig:
        """The sizes of `tensors`. Shapes do not show the size of a head's positional query (`recipe.pos_head_dim`),
        which is 4 in the recipes. Raises ValueError."""
        _, embed_inputs = expect_shape(tensors, "encoder_embed.out.weight", (None, None))
        count = max(1, _count(tensors, "encoders."))
        pos_dims = set(per_stack("pos_head_dim", recipe.pos_head_dim or (_POS_DIM,), count))
        pos_dim = pos_dims.pop()
        _expect(not pos_dims and pos_dim > 0, "one positive pos_head_dim for all stacks", recipe.pos_head_dim)
        stacks = [_stack_sizes(tensors, i, pos_dim) for i in range(count)]
        feature_dim = feature_dim_of(recipe, 4 * (embed_inputs // _EMBED_CHANNELS[-1]) + 3)
        layers, dims, attention_dims, heads, hidden_dims, kernels, factors = zip(*stacks, strict=True)
        if recipe.num_heads is not None and per_stack("num_heads", recipe.num_heads, count) != heads:
            raise ValueError(
                f"num_heads says {','.join(map(str, recipe.num_heads))}, the shapes of the tensors "
                f"'*.self_attn.linear_pos.weight' with {pos_dim} channels a head say {','.join(map(str, heads))}"
            )
        return cls(
            layers, dims, attention_dims, heads, hidden_dims, kernels, factors, feature_dim=feature_dim, pos_dim=pos_dim
        )

    @property
    def stacks(self) -> tuple[_StackSizes, ...]:
        sizes = (self.num_encoder_layers, self.encoder_dims, self.attention_dims, self.nhead, self.feedforward_dims)
        others = (self.cnn_module_kernels, self.downsampling_factors)
        return tuple(_StackSizes(*stack) for stack in zip(*sizes, *others, strict=True))

    @property
    def skips(self) -> tuple[int | None, ...]:
        """For each stack the earlier stack whose output is mixed into its input, or None. Where the frame rate rises it
        is the last one at the stack's rate or a higher, a path around the stacks at lower rates."""
        factors = self.downsampling_factors
        return tuple(
            next((j for j in range(i - 2, -1, -1) if factors[j] <= factor), 0)
            if i > 1 and factors[i - 1] > factor
            else None
            for i, factor in enumerate(factors)
        )


class Zipformer(Encoder):
    """The first Zipformer. With `causal`, `forward` is the streaming recipe's encoder with attention over the whole
    utterance (one of the chunk sizes it is trained with), else the offline recipe's. `streaming_forward` is always the
    streaming recipe's and valid only for models trained with it, which the parameters do not show."""

    family = "zipformer"

    def __init__(self, config: ZipformerConfig, causal: bool = False) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.feature_dim, self.output_dim = config.feature_dim, config.encoder_dims[-1]
        dims = config.encoder_dims
        self.encoder_embed = _Embedding(config.feature_dim, dims[0])
        input_dims = dims[:1] + dims[:-1]
        self.encoders = nn.ModuleList(
            _Stack(sizes, config.pos_dim, causal)
            if sizes.factor == 1
            else _DownsampledStack(input_dim, sizes, config.pos_dim, causal)
            for input_dim, sizes in zip(input_dims, config.stacks, strict=True)
        )
        # A module without parameters for stacks without a skip, so that module numbers equal stack numbers.
        self.skip_modules = nn.ModuleList(
            nn.Identity() if skip is None else _Combiner(dims[skip], input_dim)
            for skip, input_dim in zip(config.skips, input_dims, strict=True)
        )
        self.downsample_output = _Downsample(dims[-1], dims[-1], _OUTPUT_DOWNSAMPLING)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        """See `Encoder`. Shapes do not show whether the model is causal (trained with the streaming recipe)."""
        encoder = cls(ZipformerConfig.from_tensors(tensors, recipe), recipe.causal or False)
        encoder.recipe = recipe
        load_tensors(encoder, tensors)
        return encoder

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """See `Encoder`; the shortest utterance has nine feature frames."""
        x = self.encoder_embed(x)
        # No operand is negative, so this equals //, which takes a dozen operators in ONNX.
        lengths = torch.div(x_lens - 7, 2, rounding_mode="trunc")
        padding = torch.arange(x.size(1), device=x.device) >= lengths.unsqueeze(1)
        outputs: list[Tensor] = []
        for stack, skip, combiner in self._stacks():
            x = stack(x if skip is None else combiner(outputs[skip], x), padding)
            outputs.append(x)
        return self.downsample_output(x), torch.div(lengths + 1, 2, rounding_mode="trunc")

    def offline_metadata(self) -> Mapping[str, str]:
        return {**self.identity(), "comment": "stateless7"}

    def streaming_layout(
        self, chunk_size: int | None = None, left_context_frames: int | None = None
    ) -> StreamingLayout:
        """`chunk_size` is the recipe's `--decode-chunk-len`, in feature frames, 32 by default; `left_context_frames`
        are counted at 50 Hz, four chunks by default (64), as in the recipe (`num_left_chunks`)."""
        config, said = self.config, self.recipe
        if said.causal is False:
            raise ValueError("this Zipformer was not trained for streaming")
        if chunk_size is None:
            chunk_size = said.chunk_size
        if left_context_frames is None:
            left_context_frames = said.left_context_frames
        chunk = DECODE_CHUNK_LEN if chunk_size is None else chunk_size
        left = NUM_LEFT_CHUNKS * chunk // 2 if left_context_frames is None else left_context_frames
        frames, shortest = 2 * math.lcm(2, *config.downsampling_factors), math.lcm(*config.downsampling_factors)
        _expect(chunk > 0 and chunk % frames == 0, f"a chunk size that is a multiple of {frames}", chunk)
        _expect(left > 0 and left % shortest == 0, f"left context frames that are a multiple of {shortest}", left)
        lefts = [left // factor for factor in config.downsampling_factors]
        lists = {
            "num_encoder_layers": config.num_encoder_layers,
            "encoder_dims": config.encoder_dims,
            "attention_dims": config.attention_dims,
            "cnn_module_kernels": config.cnn_module_kernels,
            "left_context_len": lefts,
        }
        metadata = {**self.identity(), "decode_chunk_len": str(chunk), "T": str(chunk + 7)}
        metadata |= {name: ",".join(map(str, sizes)) for name, sizes in lists.items()}
        states = [_stack_states(i, stack, lefts[i]) for i, stack in enumerate(config.stacks)]
        return StreamingLayout(chunk + 7, chunk, tuple(_by_kind(states)), metadata)

    def streaming_forward(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `Encoder`. As in Icefall, the first frames of a stream attend to the zeros of the initial states, which
        they do not in training."""
        x = self.encoder_embed(x)
        outputs: list[Tensor] = []
        pasts: list[_Past] = []
        for i, (stack, skip, combiner) in enumerate(self._stacks()):
            past = _Past(*states[i :: len(self.encoders)])
            x, past = stack.streaming_forward(x if skip is None else combiner(outputs[skip], x), past)
            outputs.append(x)
            pasts.append(past)
        return self.downsample_output(x), _by_kind(pasts)

    def _stacks(self) -> list[tuple[_Stack | _DownsampledStack, int | None, nn.Module]]:
        stacks = cast("Sequence[_Stack | _DownsampledStack]", self.encoders)
        return list(zip(stacks, self.config.skips, self.skip_modules, strict=True))


class _Past(NamedTuple):
    """A layer's states from the frames before a chunk. A stack's have the layers as a second axis, [N, L, …]."""

    length: Tensor  # int64 [N]: number of frames so far
    average: Tensor  # [N, D]: mean of the inputs of `_Pooling` over them
    key: Tensor  # [N, left, A]: of the last `left` frames, like the next two
    value: Tensor  # [N, left, A / 2]
    value2: Tensor  # [N, left, A / 2]
    conv1: Tensor  # [N, D, kernel - 1]: last inputs of the depthwise convolutions
    conv2: Tensor  # [N, D, kernel - 1]


def _stack_states(i: int, stack: _StackSizes, left: int) -> tuple[EncoderState, ...]:
    """`_Past` of stack `i` with the export's names and its shapes without the batch."""
    layers, dim, value_dim = stack.num_layers, stack.dim, stack.attention_dim // 2
    return (
        EncoderState(f"cached_len_{i}", (layers,), batch_axis=1, dtype=torch.int64),
        EncoderState(f"cached_avg_{i}", (layers, dim), batch_axis=1),
        EncoderState(f"cached_key_{i}", (layers, left, stack.attention_dim), batch_axis=2),
        EncoderState(f"cached_val_{i}", (layers, left, value_dim), batch_axis=2),
        EncoderState(f"cached_val2_{i}", (layers, left, value_dim), batch_axis=2),
        EncoderState(f"cached_conv1_{i}", (layers, dim, stack.kernel - 1), batch_axis=1),
        EncoderState(f"cached_conv2_{i}", (layers, dim, stack.kernel - 1), batch_axis=1),
    )


def _by_kind(stacks: Sequence[tuple[_Item, ...]]) -> list[_Item]:
    """States in the order of the export: one kind of all stacks, then the next kind."""
    return [state for kind in zip(*stacks, strict=True) for state in kind]


class _Embedding(nn.Module):
    """Features [N, T, F] to [N, (T - 7) // 2, D]: three convolutions over time and frequency, then a projection of all
    frequencies of a frame. There is no padding in time, so seven frames are lost."""

    def __init__(self, feature_dim: int, dim: int) -> None:
        super().__init__()
        first, second, third = _EMBED_CHANNELS
        convolutions = (
            nn.Conv2d(1, first, kernel_size=3, padding=(0, 1)),
            nn.Conv2d(first, second, kernel_size=3, stride=2),
            nn.Conv2d(second, third, kernel_size=3, stride=(1, 2)),
        )
        # The identities take the places of the recipe's balancers, which the numbers in the names count.
        self.conv = nn.Sequential(*(m for conv in convolutions for m in (conv, nn.Identity(), DoubleSwish())))
        self.out = nn.Linear(third * (((feature_dim - 1) // 2 - 1) // 2), dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1))  # [N, channels, T', F']
        return self.out(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _Stack(nn.Module):
    """Layers at one frame rate, which share their positional encoding: [N, T, D] to [N, T, D]."""

    def __init__(self, sizes: _StackSizes, pos_dim: int, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(sizes, pos_dim, causal) for _ in range(sizes.num_layers))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """`padding` bool [N, T] is true for padding."""
        positions = _relative_positions(x, 0)
        for layer in self.layers:
            x = layer(x, positions, padding)
        return x

    def streaming_forward(self, x: Tensor, past: _Past) -> tuple[Tensor, _Past]:
        positions = _relative_positions(x, past.key.size(2))
        pasts: list[_Past] = []
        for i, layer in enumerate(cast("Sequence[_Layer]", self.layers)):
            x, layer_past = layer.streaming_forward(x, positions, _Past(*(state[:, i] for state in past)))
            pasts.append(layer_past)
        return x, _Past(*(torch.stack(kind, dim=1) for kind in zip(*pasts, strict=True)))


class _DownsampledStack(nn.Module):
    """A stack at a frame rate lower by `factor`, mixed with its input: [N, T, input_dim] to [N, T, D]."""

    def __init__(self, input_dim: int, sizes: _StackSizes, pos_dim: int, causal: bool) -> None:
        super().__init__()
        self.factor = sizes.factor
        self.downsample = _Downsample(input_dim, sizes.dim, sizes.factor)
        self.encoder = _Stack(sizes, pos_dim, causal)
        self.upsample = _Upsample(sizes.dim, sizes.factor)
        self.out_combiner = _Combiner(input_dim, sizes.dim)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """`padding` [N, T] is at the input's frame rate."""
        y = self.encoder(self.downsample(x), padding[:, :: self.factor])
        return self._combine(x, y)

    def streaming_forward(self, x: Tensor, past: _Past) -> tuple[Tensor, _Past]:
        y, past = self.encoder.streaming_forward(self.downsample(x), past)
        return self._combine(x, y), past

    def _combine(self, x: Tensor, y: Tensor) -> Tensor:
        return self.out_combiner(x, self.upsample(y)[:, : x.size(1)])  # type: ignore[no-any-return]


class _Downsample(nn.Module):
    """The weighted mean of every `factor` frames, with learned weights: [N, T, input_dim] to [N, ceil(T / factor), D].

    The output's additional channels are projections of all `factor` frames.
    """

    def __init__(self, input_dim: int, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.query = nn.Parameter(torch.zeros(input_dim))
        self.extra_proj = nn.Linear(input_dim * factor, dim - input_dim, bias=False) if dim > input_dim else None

    def forward(self, x: Tensor) -> Tensor:
        groups = (x.size(1) + self.factor - 1) // self.factor
        # The last group is filled with copies of the last frame, always as many as could be needed: no branch on T.
        x = torch.cat((x, *[x[:, -1:]] * (self.factor - 1)), dim=1)[:, : groups * self.factor]
        x = x.reshape(x.size(0), groups, self.factor, x.size(2))
        weights = (x * self.query).sum(dim=-1, keepdim=True).softmax(dim=2)
        mean = (x * weights).sum(dim=2)
        return mean if self.extra_proj is None else torch.cat((mean, self.extra_proj(x.flatten(2))), dim=-1)


class _Upsample(nn.Module):
    """Every frame repeated `factor` times, each copy with its own bias: [N, T, D] to [N, T factor, D]."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(factor, dim))

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(2) + self.bias).flatten(1, 2)


class _Combiner(nn.Module):
    """weight x + (1 - weight) y; x counts as zero in the channels that only y has."""

    def __init__(self, dim: int, other_dim: int) -> None:
        super().__init__()
        self.missing = other_dim - dim
        self.weight1 = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        wide = functional.pad(x, (0, self.missing)) if self.missing else x
        return wide * self.weight1 + y * (1.0 - self.weight1)


class _Layer(nn.Module):
    """One layer, [N, T, D] to [N, T, D]. The attention weights are computed once and used twice."""

    def __init__(self, sizes: _StackSizes, pos_dim: int, causal: bool) -> None:
        super().__init__()
        dim = sizes.dim
        self.feed_forward1 = _FeedForward(dim, sizes.feedforward_dim)
        self.pooling = _Pooling(dim, causal)
        self.self_attn = _Attention(dim, sizes.attention_dim, sizes.nhead, pos_dim)
        self.conv_module1 = _Convolution(dim, sizes.kernel, causal)
        self.feed_forward2 = _FeedForward(dim, sizes.feedforward_dim)
        self.conv_module2 = _Convolution(dim, sizes.kernel, causal)
        self.feed_forward3 = _FeedForward(dim, sizes.feedforward_dim)
        self.norm_final = BasicNorm()
        self.bypass_scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> Tensor:
        before = x
        x = x + self.feed_forward1(x)
        x = x + self.pooling(x, padding)
        attended, weights = self.self_attn(x, positions, padding)
        x = x + attended
        x = x + self.conv_module1(x, padding)
        x = x + self.feed_forward2(x)
        x = x + self.self_attn.forward2(x, weights)
        x = x + self.conv_module2(x, padding)
        x = x + self.feed_forward3(x)
        return self._bypass(before, x)

    def streaming_forward(self, x: Tensor, positions: Tensor, past: _Past) -> tuple[Tensor, _Past]:
        before = x
        x = x + self.feed_forward1(x)
        pooled, length, average = self.pooling.streaming_forward(x, past.length, past.average)
        x = x + pooled
        attended, weights, key, value = self.self_attn.streaming_forward(x, positions, past.key, past.value)
        x = x + attended
        convolved, conv1 = self.conv_module1.streaming_forward(x, past.conv1)
        x = x + convolved
        x = x + self.feed_forward2(x)
        attended, value2 = self.self_attn.streaming_forward2(x, weights, past.value2)
        x = x + attended
        convolved, conv2 = self.conv_module2.streaming_forward(x, past.conv2)
        x = x + convolved
        x = x + self.feed_forward3(x)
        return self._bypass(before, x), _Past(length, average, key, value, value2, conv1, conv2)

    def _bypass(self, before: Tensor, x: Tensor) -> Tensor:
        """The layer's input and normalised output, mixed by a learned scale."""
        after: Tensor = self.norm_final(x)
        return before + (after - before) * self.bypass_scale


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden_dim)
        self.activation = DoubleSwish()
        self.out_proj = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.activation(self.in_proj(x)))  # type: ignore[no-any-return]


class _Pooling(nn.Module):
    """A projection of the mean over the whole utterance, the same for every frame, [N, 1, D]; if causal, of the mean
    over each frame and all before it, [N, T, D]."""

    def __init__(self, dim: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        if self.causal:
            wide = _wide(x)
            counts = torch.arange(1, x.size(1) + 1, device=x.device, dtype=wide.dtype)
            return self.proj(_like(x, wide.cumsum(dim=1) / counts.unsqueeze(1)))  # type: ignore[no-any-return]
        valid = padding.logical_not().to(x.dtype)
        weights = valid / valid.sum(dim=1, keepdim=True)
        return self.proj(weights.unsqueeze(1) @ x)  # type: ignore[no-any-return]

    def streaming_forward(self, x: Tensor, length: Tensor, average: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the projection and the next `length` [N] and `average` [N, D]."""
        wide = _wide(x)
        counts = length.unsqueeze(1) + torch.arange(1, x.size(1) + 1, device=x.device)
        total = _wide(average) * length.unsqueeze(1).to(wide.dtype)
        means = _like(x, (wide.cumsum(dim=1) + total.unsqueeze(1)) / counts.unsqueeze(2).to(wide.dtype))
        return self.proj(means), length + x.size(1), means[:, -1]


# Counts of frames and sums over them are beyond half precision. A cast of what has the type already would be a node of
# the exported graph.
def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float32 else x.float()


def _like(x: Tensor, wide: Tensor) -> Tensor:
    return wide if wide.dtype == x.dtype else wide.to(x.dtype)


class _Convolution(nn.Module):
    """Gate, depthwise convolution over `kernel` frames, activation, projection: [N, T, D] to [N, T, D]."""

    def __init__(self, dim: int, kernel: int, causal: bool) -> None:
        super().__init__()
        self.kernel, self.causal = kernel, causal
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, kernel_size=1)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel_size=kernel, groups=dim)
        self.activation = DoubleSwish()
        self.pointwise_conv2 = nn.Conv1d(dim, dim, kernel_size=1)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        gated = self._gate(x).masked_fill(padding.unsqueeze(1), 0.0)
        if not self.causal:
            return self._convolve(gated, self.kernel // 2)
        # Causal convolution needs zeros on the left only; the frames computed from those on the right are cut off.
        return self._convolve(gated, self.kernel - 1)[:, : x.size(1)]

    def streaming_forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """`past` [N, D, kernel - 1] are the gated frames before. Returns the result and the next `past`."""
        frames = x.size(1)
        x = torch.cat((past, self._gate(x)), dim=2)
        return self._convolve(x, 0), x[:, :, frames:]

    def _gate(self, x: Tensor) -> Tensor:
        """[N, T, D] to [N, D, T]."""
        return functional.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)

    def _convolve(self, x: Tensor, padding: int) -> Tensor:
        """[N, D, T] to [N, T + 2 padding + 1 - kernel, D]."""
        depthwise = self.depthwise_conv
        x = functional.conv1d(x, depthwise.weight, depthwise.bias, padding=padding, groups=depthwise.groups)
        y: Tensor = self.pointwise_conv2(self.activation(x))
        return y.transpose(1, 2)


class _Attention(nn.Module):
    """Self-attention whose weights serve two sets of values: `forward` computes the weights, `forward2` reuses them.

    A head's queries and keys have A / H channels, its values half of that. The score of a key is query · key, without
    the usual division by a square root (learned instead), plus positional query · projected encoding of the distance.
    """

    def __init__(self, dim: int, attention_dim: int, nhead: int, pos_dim: int) -> None:
        super().__init__()
        self.nhead = nhead
        # Query, key, value, positional query: one projection.
        self.sizes = (attention_dim, attention_dim, attention_dim // 2, nhead * pos_dim)
        self.in_proj = nn.Linear(dim, sum(self.sizes))
        self.linear_pos = nn.Linear(dim, nhead * pos_dim, bias=False)
        self.out_proj = nn.Linear(attention_dim // 2, dim)
        self.in_proj2 = nn.Linear(dim, attention_dim // 2, bias=False)
        self.out_proj2 = nn.Linear(attention_dim // 2, dim)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the attended values [N, T, D] and the weights [N, H, T, T]."""
        query, key, value, pos_query = self.in_proj(x).split(self.sizes, dim=-1)
        scores = self._scores(query, key, pos_query, positions)
        weights = scores.masked_fill(padding[:, None, None, :], -math.inf).softmax(dim=-1)
        return self.out_proj(self._attend(weights, value)), weights

    def forward2(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.out_proj2(self._attend(weights, self.in_proj2(x)))  # type: ignore[no-any-return]

    def streaming_forward(
        self, x: Tensor, positions: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the attended values [N, T, D], the weights [N, H, T, K], and the next past keys and values."""
        frames = x.size(1)
        query, key, value, pos_query = self.in_proj(x).split(self.sizes, dim=-1)
        key, value = torch.cat((past_key, key), dim=1), torch.cat((past_value, value), dim=1)
        weights = self._scores(query, key, pos_query, positions).softmax(dim=-1)
        return self.out_proj(self._attend(weights, value)), weights, key[:, frames:], value[:, frames:]

    def streaming_forward2(self, x: Tensor, weights: Tensor, past_value: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.cat((past_value, self.in_proj2(x)), dim=1)
        return self.out_proj2(self._attend(weights, value)), value[:, x.size(1) :]

    def _scores(self, query: Tensor, key: Tensor, pos_query: Tensor, positions: Tensor) -> Tensor:
        """Scores [N, H, T, K], for `positions` [T + K - 1, D] of `_relative_positions`."""
        projected = self.linear_pos(positions).reshape(positions.size(0), self.nhead, -1).permute(1, 2, 0)
        by_content = self._heads(query) @ self._heads(key).transpose(2, 3)
        by_distance = by_source(self._heads(pos_query) @ projected)
        return by_content + by_distance

    def _attend(self, weights: Tensor, value: Tensor) -> Tensor:
        """[N, H, T, K] and [N, K, A / 2] to [N, T, A / 2]."""
        return (weights @ self._heads(value)).transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        """[N, T, H d] to [N, H, T, d]."""
        return x.reshape(x.size(0), x.size(1), self.nhead, -1).transpose(1, 2)


def _relative_positions(x: Tensor, left: int) -> Tensor:
    """Encodings [left + 2 T - 1, D] of the distances from a query back to a key, for `x` [N, T, D].

    Distances fall from left + T - 1 (the last query to the first key) to 1 - T. Sines are in the even channels, cosines
    in the odd.
    """
    frames, dim = x.size(1), x.size(2)
    distances = left + frames - 1 - torch.arange(left + 2 * frames - 1, device=x.device)
    rates = torch.exp(torch.arange(0, dim, 2, device=x.device) * -(math.log(10000.0) / dim))
    angles = distances.unsqueeze(1).to(rates.dtype) * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(x.dtype)


def _layers(tensors: Mapping[str, Tensor], i: int) -> str:
    """The prefix of the layers of stack `i`."""
    wrapped = any(name.startswith(f"encoders.{i}.encoder.") for name in tensors)
    return f"encoders.{i}.encoder.layers." if wrapped else f"encoders.{i}.layers."


def _stack_sizes(tensors: Mapping[str, Tensor], i: int, pos_dim: int) -> _StackSizes:
    """The sizes of stack `i`, from the shapes in its first layer."""
    factor, prefix = 1, _layers(tensors, i)
    if ".encoder.layers." in prefix:
        factor, _ = expect_shape(tensors, f"encoders.{i}.upsample.bias", (None, None))
    dim, values = expect_shape(tensors, f"{prefix}0.self_attn.out_proj.weight", (None, None))
    pos_queries, _ = expect_shape(tensors, f"{prefix}0.self_attn.linear_pos.weight", (None, dim))
    _expect(pos_queries % pos_dim == 0, f"a multiple of {pos_dim} rows in {prefix}0.self_attn.linear_pos", pos_queries)
    feedforward_dim, _ = expect_shape(tensors, f"{prefix}0.feed_forward1.in_proj.weight", (None, dim))
    _, _, kernel = expect_shape(tensors, f"{prefix}0.conv_module1.depthwise_conv.weight", (dim, 1, None))
    heads = pos_queries // pos_dim
    return _StackSizes(_count(tensors, prefix), dim, 2 * values, heads, feedforward_dim, kernel, factor)


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """The number of modules numbered after `prefix`."""
    numbers = (name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix))
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)


def _expect(condition: bool, what: str, got: object) -> None:
    if not condition:
        raise ValueError(f"expected {what}, got {got}")
