"""Icefall's LSTM encoder: lstm_transducer_stateless2 and 3, streaming with chunks of a single frame of 40 ms.

The layers are those of the Conformer with an LSTM in place of attention and convolution. Tensors are [N, T, D]: batch,
time, channels. Training may mix several layers' outputs (RandomCombine), which has no parameters and in inference is
the last layer's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from moulin.encoders.encoder import Encoder, EncoderState, StreamingLayout
from moulin.encoders.norms import BasicNorm
from moulin.encoders.recipe import NOTHING_SAID, Recipe
from moulin.encoders.subsampling import Conv2dSubsampling, SubsamplingConfig, count_layers, feed_forward
from moulin.encoders.tensors import expect_shape, load_tensors


@dataclass(frozen=True, slots=True)
class LstmConfig:
    """`cells`: size of the LSTM's cell state, projected to `dim` channels if larger (Icefall's `--rnn-hidden-size`).
    `hidden`: channels within the feed-forward modules."""

    num_layers: int = 12
    dim: int = 512
    cells: int = 1024
    hidden: int = 2048
    subsampling: SubsamplingConfig = field(default_factory=lambda: SubsamplingConfig(padding=0))

    def __post_init__(self) -> None:
        if self.cells < self.dim:
            raise ValueError(
                f"expected at least {self.dim} LSTM cells, as many as there are channels, got {self.cells}"
            )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> LstmConfig:
        """The sizes of `tensors`; those of the first layer are taken for all layers. Raises ValueError."""
        layer = "encoder.layers.0"
        dim, _ = expect_shape(tensors, "encoder_embed.out.weight", (None, None))
        gates, _ = expect_shape(tensors, f"{layer}.lstm.weight_ih_l0", (None, dim))
        hidden, _ = expect_shape(tensors, f"{layer}.feed_forward.0.weight", (None, dim))
        subsampling = SubsamplingConfig.from_tensors(tensors, 0, recipe)
        return cls(count_layers(tensors), dim, gates // 4, hidden, subsampling)


class Lstm(Encoder):
    """A convolutional subsampling by four, and LSTM layers (lstm_transducer_stateless2/lstm.py)."""

    family = "lstm"

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = config.subsampling.feature_dim
        self.output_dim = config.dim
        self.encoder_embed = Conv2dSubsampling(config.subsampling, config.dim)
        self.encoder = LstmLayers(config)
        self.eval()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], recipe: Recipe = NOTHING_SAID) -> Self:
        encoder = cls(LstmConfig.from_tensors(tensors, recipe))
        encoder.recipe = recipe
        load_tensors(encoder, tensors)
        return encoder

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class. T' = (T - 5) // 4, which is Icefall's ((T - 3) // 2 - 1) // 2. A frame depends on its own
        window and the past only, so padding changes nothing."""
        states = [x.new_zeros(x.shape[0], *state.shape) for state in self.streaming_layout().states]
        return self.streaming_forward(x, states)[0], self.encoder_embed.lengths(x_lens)

    def offline_metadata(self) -> Mapping[str, str]:
        """Empty: Icefall has no such export."""
        return {}

    def streaming_layout(
        self, chunk_size: int | None = None, left_context_frames: int | None = None
    ) -> StreamingLayout:
        """See the base class. Neither size can be chosen: a chunk is one encoder frame, the states hold the past."""
        sizes = (chunk_size, left_context_frames, self.recipe.chunk_size, self.recipe.left_context_frames)
        if any(size is not None for size in sizes):
            raise ValueError("an LSTM encoder has neither a chunk size nor a left context to choose")
        config = self.config
        window, chunk = 4 + self.encoder_embed.lost_frames, 4
        return StreamingLayout(
            window_frames=window,
            chunk_frames=chunk,
            states=(
                EncoderState("state0", (config.num_layers, config.dim), batch_axis=1),
                EncoderState("state1", (config.num_layers, config.cells), batch_axis=1),
            ),
            metadata={
                **self.identity(),
                "decode_chunk_len": str(chunk),
                "T": str(window),
                "num_encoder_layers": str(config.num_layers),
                "d_model": str(config.dim),
                "rnn_hidden_size": str(config.cells),
            },
        )

    def streaming_forward(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See the base class. States: the layers' last outputs [N, L, D] and cells [N, L, cells]. A window longer than
        the layout's gives more than one encoder frame."""
        outputs, cells = states
        x, outputs, cells = self.encoder(self.encoder_embed(x), outputs.unbind(1), cells.unbind(1))
        return x, [outputs, cells]


class LstmLayers(nn.Module):
    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LstmLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, outputs: Sequence[Tensor], cells: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Frames [N, T, D] with each layer's states [N, D] and [N, cells], to output frames [N, T, D] and the next
        states stacked, [N, L, D] and [N, L, cells]."""
        next_outputs, next_cells = [], []
        for layer, output, cell in zip(self.layers, outputs, cells, strict=True):
            x, output, cell = layer(x, output, cell)
            next_outputs.append(output)
            next_cells.append(cell)
        return x, torch.stack(next_outputs, dim=1), torch.stack(next_cells, dim=1)


class LstmLayer(nn.Module):
    """An LSTM, a feed-forward module, and one normalisation; the first two added to their input."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.lstm = ProjectedLstm(config.dim, config.cells)
        self.feed_forward = feed_forward(config.dim, config.hidden)
        self.norm_final = BasicNorm()

    def forward(self, x: Tensor, output: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        said, output, cells = self.lstm(x, output, cells)
        x = x + said
        x = x + self.feed_forward(x)
        return self.norm_final(x), output, cells


class ProjectedLstm(nn.Module):
    """One layer of nn.LSTM with `proj_size=dim` and its parameter names, unrolled over the frames: ONNX's LSTM has no
    projection, and torch.onnx refuses nn.LSTM with one.

    There is no projection where cells and channels are equally many.
    """

    def __init__(self, dim: int, cells: int) -> None:
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.zeros(4 * cells, dim))
        self.weight_hh_l0 = nn.Parameter(torch.zeros(4 * cells, dim))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(4 * cells))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(4 * cells))
        self.weight_hr_l0 = nn.Parameter(torch.zeros(dim, cells)) if cells > dim else None

    def forward(self, x: Tensor, output: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames [N, T, D] after the states [N, D] and [N, cells], to the outputs [N, T, D] and the next states."""
        heard = functional.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        outputs = []
        for frame in heard.unbind(1):
            write, keep, new, read = (frame + functional.linear(output, self.weight_hh_l0)).chunk(4, dim=-1)
            cells = keep.sigmoid() * cells + write.sigmoid() * new.tanh()
            output = read.sigmoid() * cells.tanh()
            if self.weight_hr_l0 is not None:
                output = functional.linear(output, self.weight_hr_l0)
            outputs.append(output)
        return torch.stack(outputs, dim=1), output, cells
