"""The truth is Icefall's: its export of the same checkpoint, run by ONNX Runtime. It has none for whole utterances."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.lstm import Lstm, LstmConfig
from moulin.encoders.subsampling import SubsamplingConfig
from moulin.encoders.tensors import part
from tests.bundles import BUNDLES

BUNDLE = BUNDLES / "lstm-streaming"
ENCODER = BUNDLE / "encoder-epoch-1-avg-1.onnx"
TOLERANCE = 2e-5


class Streaming(nn.Module):
    """What Icefall exports: the encoder of the bundle with the joiner's projection behind it."""

    def __init__(self) -> None:
        super().__init__()
        tensors = read_checkpoint(BUNDLE / "epoch-1.pt").tensors
        self.encoder = Lstm.from_tensors(part(tensors, "encoder."))
        self.project = Joiner.from_tensors(part(tensors, "joiner.")).encoder_proj

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, states_out = self.encoder.streaming_forward(x, states)
        return self.project(y), *states_out


@pytest.fixture(scope="module")
def streaming() -> Streaming:
    return Streaming()


def features(streams: int, frames: int) -> Tensor:
    return 2 * torch.randn(streams, frames, 80, generator=torch.Generator().manual_seed(frames)) - 8


@pytest.mark.parametrize("streams", [1, 3])
def test_streams_equal_icefalls(streaming: Streaming, streams: int) -> None:
    session, layout = onnxruntime.InferenceSession(ENCODER), streaming.encoder.streaming_layout()
    states = streaming.encoder.initial_states(layout, streams)
    theirs = {
        state.name: tensor.movedim(0, state.batch_axis).numpy()
        for state, tensor in zip(layout.states, states, strict=True)
    }
    utterances = features(streams, 20 * layout.chunk_frames + 5)
    for start in range(0, 20 * layout.chunk_frames, layout.chunk_frames):
        x = utterances[:, start : start + layout.window_frames]
        y, *states = streaming(x, *states)
        wanted, *following = session.run(None, {"x": x.numpy(), **theirs})
        theirs = dict(zip(theirs, following, strict=True))
        np.testing.assert_allclose(y, wanted, atol=TOLERANCE, rtol=0)
        for state, tensor in zip(layout.states, states, strict=True):
            got = tensor.movedim(0, state.batch_axis)
            np.testing.assert_allclose(got, theirs[state.name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("lengths", [[9], [12], [85, 30, 9]])
def test_whole_utterances_are_as_in_a_stream(streaming: Streaming, lengths: list[int]) -> None:
    """Frame by frame as Icefall streams, whatever is in the padding."""
    encoder = streaming.encoder
    layout = encoder.streaming_layout()
    x = features(len(lengths), max(lengths))
    y, y_lens = encoder(x, torch.tensor(lengths))
    assert y_lens.tolist() == [((length - 3) // 2 - 1) // 2 for length in lengths]
    for row, frames, got in zip(x, y_lens, y, strict=True):
        states = encoder.initial_states(layout, 1)
        for i in range(int(frames)):
            window = row[None, layout.chunk_frames * i :][:, : layout.window_frames]
            wanted, states = encoder.streaming_forward(window, states)
            torch.testing.assert_close(got[i], wanted[0, 0], atol=TOLERANCE, rtol=0)


def test_layout_and_metadata_are_those_of_the_export(streaming: Streaming) -> None:
    layout = streaming.encoder.streaming_layout()
    assert dict(layout.metadata) == {entry.key: entry.value for entry in onnx.load(ENCODER).metadata_props}
    assert streaming.encoder.offline_metadata() == {}
    x, *states = onnxruntime.InferenceSession(ENCODER).get_inputs()
    assert (layout.window_frames, streaming.encoder.feature_dim) == tuple(x.shape[1:])
    for got, wanted in zip(layout.states, states, strict=True):
        shape = list(got.shape)
        shape.insert(got.batch_axis, "N")  # type: ignore[arg-type]
        assert (got.name, shape) == (wanted.name, wanted.shape)


@pytest.mark.parametrize("sizes", [(4, None), (None, 64)])
def test_there_are_no_sizes_to_choose(streaming: Streaming, sizes: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match="neither a chunk size nor a left context"):
        streaming.encoder.streaming_layout(*sizes)


SIZES = [
    LstmConfig(1, 24, 31, 10, SubsamplingConfig(40, (3, 5, 7), padding=0)),
    LstmConfig(11, 6, 13, 5, SubsamplingConfig(80, (1, 2, 3), padding=0)),
    # As many cells as channels: no projection.
    LstmConfig(2, 15, 15, 62, SubsamplingConfig(24, (8, 4, 2), padding=0)),
]


@pytest.mark.parametrize("config", SIZES)
def test_sizes_come_from_the_tensors(config: LstmConfig) -> None:
    made = Lstm(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    read = Lstm.from_tensors(made.state_dict())
    assert read.config == config
    x = torch.randn(2, 50, config.subsampling.feature_dim)
    torch.testing.assert_close(read(x, torch.tensor([50, 31])), made(x, torch.tensor([50, 31])))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("config", SIZES)
def test_the_cells_are_those_of_torch(config: LstmConfig) -> None:
    """Also without a projection, which no export of Icefall's shows."""
    ours = Lstm(config).encoder.layers[0].lstm
    assert isinstance(ours, nn.Module)
    theirs = nn.LSTM(config.dim, config.cells, proj_size=config.dim if config.cells > config.dim else 0)
    ours.load_state_dict(theirs.state_dict())
    x, output, cells = (torch.randn(2, *size) for size in ((9, config.dim), (config.dim,), (config.cells,)))
    wanted, (last_output, last_cells) = theirs(x.transpose(0, 1), (output[None], cells[None]))
    torch.testing.assert_close(ours(x, output, cells), (wanted.transpose(0, 1), last_output[0], last_cells[0]))


@pytest.mark.parametrize("name", sorted(Lstm(SIZES[0]).state_dict()))
def test_a_missing_tensor_is_named(name: str) -> None:
    tensors = Lstm(SIZES[0]).state_dict()
    del tensors[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        Lstm.from_tensors(tensors)


def test_fewer_cells_than_channels() -> None:
    tensors = Lstm(SIZES[0]).state_dict()
    tensors["encoder.layers.0.lstm.weight_ih_l0"] = torch.zeros(4 * 23, 24)
    with pytest.raises(ValueError, match="at least 24 LSTM cells"):
        Lstm.from_tensors(tensors)


def test_parameters_are_as_many_as_published() -> None:
    """librispeech/ASR/RESULTS.md: 84,689,496. Icefall counts the scales, which we fold in, and the projections that
    only training needs, but not the one eps that is not learned."""
    with torch.device("meta"):
        modules: list[nn.Module] = [Lstm(LstmConfig()), Decoder(500, 512, 2, groups=512), Joiner(512, 512, 512, 500)]
        modules += [nn.Linear(512, 500), nn.Linear(512, 500)]
    named = [pair for module in modules for pair in module.named_parameters()]
    scales = sum(not name.endswith(".eps") for name, _ in named)
    assert sum(parameter.numel() for _, parameter in named) + scales - 1 == 84_689_496


def test_exports_with_a_free_batch(tmp_path: Path, streaming: Streaming) -> None:
    layout, file = streaming.encoder.streaming_layout(), tmp_path / "lstm.onnx"
    inputs, outputs = ["x", "state0", "state1"], ["y", "new_state0", "new_state1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            streaming,
            (features(2, layout.window_frames), *streaming.encoder.initial_states(layout, 2)),
            file,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "N"} for name in [*inputs, *outputs]},
            dynamo=False,
            opset_version=17,
        )
    operators = {node.op_type for node in onnx.load(file).graph.node}
    assert not operators & {"If", "Loop", "Scan", "LSTM", "NonZero", "ScatterND"}
    session = onnxruntime.InferenceSession(file)
    for streams in (1, 5):
        x = features(streams, layout.window_frames)
        states = [torch.randn_like(state) for state in streaming.encoder.initial_states(layout, streams)]
        feed = {name: tensor.numpy() for name, tensor in zip(inputs, (x, *states), strict=True)}
        for got, wanted in zip(session.run(None, feed), streaming(x, *states), strict=True):
            np.testing.assert_allclose(got, wanted, atol=TOLERANCE, rtol=0)
