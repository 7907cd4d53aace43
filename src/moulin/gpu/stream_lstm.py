"""The LSTM encoder on a GPU, a frame at a time, with the states of all streams on the card.

`moulin.encoders.lstm.Lstm.streaming_forward` is the plain twin. Cells are float32 in every precision: they add up over
a whole stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moulin.encoders.lstm import Lstm, LstmConfig, LstmLayer, ProjectedLstm
from moulin.encoders.recipe import Recipe
from moulin.gpu.encoder import GpuStreamEncoder, Projection, bias_of, on
from moulin.gpu.kernels.lstm_cell import add_output, beside_output, lstm_cell
from moulin.gpu.kernels.pointwise import basic_norm
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.modules import Embedding, FeedForward, linear_layers


class GpuStreamLstm(GpuStreamEncoder):
    def _make(self, encoder: Lstm, capacity: int, like: Tensor) -> None:
        self._embed = Embedding(encoder.encoder_embed, like)
        self._layers = [_Layer(layer, encoder.config, capacity, like) for layer in encoder.encoder.layers]  # type: ignore[arg-type]
        self._lengths = self._lengths_of(encoder.streaming_layout().window_frames)

    @staticmethod
    def check_sizes(tensors: Mapping[str, Any], recipe: Recipe) -> None:
        """The kernels take all sizes."""

    @staticmethod
    def state_bytes(encoder: Lstm, dtype: torch.dtype) -> int:
        config: LstmConfig = encoder.config
        return config.num_layers * (config.dim * dtype.itemsize + config.cells * torch.float32.itemsize)

    @property
    def out_frames(self) -> int:
        return 1

    def __call__(self, windows: Tensor, at: Chunks) -> Tensor:
        rows = self._embed(windows, self._lengths[: len(windows)])
        for layer in self._layers:
            rows = layer(rows, at)
        return self._projected(rows)[:, None]


class _Layer:
    """`moulin.encoders.lstm.LstmLayer`. The feed-forward module's last bias is added in the norm at the end."""

    def __init__(self, layer: LstmLayer, config: LstmConfig, capacity: int, like: Tensor) -> None:
        self._gates, project = _gates(layer.lstm, like), layer.lstm.weight_hr_l0
        self._project = None if project is None else on(project.t(), like)
        up, down = linear_layers(layer.feed_forward)
        self._feed_forward = FeedForward(up, down, "double_swish", missing=None, like=like)
        self._missing = on(bias_of(down), like, dtype=torch.float32)
        self._epsilon = float(layer.norm_final.eps.exp())
        self._outputs = torch.zeros(capacity, config.dim, device=like.device, dtype=like.dtype)
        self._cells = torch.zeros(capacity, config.cells, device=like.device)

    def __call__(self, rows: Tensor, at: Chunks) -> Tensor:
        """Rows [B, D] to new rows; the input is overwritten."""
        said = lstm_cell(self._gates(beside_output(rows, at, self._outputs)), at, self._cells)
        if self._project is not None:
            said = said @ self._project
        rows = self._feed_forward(add_output(rows, said, at, self._outputs))
        return basic_norm(rows, self._missing, self._epsilon)


def _gates(lstm: ProjectedLstm, like: Tensor) -> Projection:
    """The gates' projection of an input beside the last output, one product."""
    weight = torch.cat([lstm.weight_ih_l0, lstm.weight_hh_l0], dim=1).detach()
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.load_state_dict({"weight": weight, "bias": (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()})
    return Projection.of(layer, missing=None, like=like)
