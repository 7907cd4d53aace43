"""The truth is Icefall's: its exports of the same checkpoints, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.conformer import Conformer, ConformerConfig
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.recipe import Recipe
from moulin.encoders.subsampling import SubsamplingConfig
from moulin.encoders.tensors import part
from tests.bundles import BUNDLES

ENCODER = "encoder-epoch-1-avg-1.onnx"
TOLERANCE = 2e-5
# TensorRT takes no branches that depend on data, or takes them badly.
UNWANTED = {"If", "Loop", "Scan", "NonZero", "ScatterND", "ScatterElements", "GatherElements"}


class Projected(nn.Module):
    """What Icefall exports: the encoder of a bundle with the joiner's projection behind it."""

    def __init__(self, bundle: str) -> None:
        super().__init__()
        tensors = read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors
        self.encoder = Conformer.from_tensors(part(tensors, "encoder."))
        self.project = Joiner.from_tensors(part(tensors, "joiner.")).encoder_proj

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        y, y_lens = self.encoder(x, x_lens)
        return self.project(y), y_lens


class Streaming(Projected):
    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        y, states_out = self.encoder.streaming_forward(x, states)
        return self.project(y), *states_out


@pytest.fixture(scope="module")
def offline() -> Projected:
    return Projected("conformer-offline")


@pytest.fixture(scope="module")
def streaming() -> Streaming:
    return Streaming("conformer-streaming")


def icefall(bundle: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(BUNDLES / bundle / ENCODER)


def batch(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Random features, padded with silence."""
    generator = torch.Generator().manual_seed(sum(lengths))
    x = 2 * torch.randn(len(lengths), max(lengths), 80, generator=generator) - 8
    for row, length in zip(x, lengths, strict=True):
        row[length:] = -23.0
    return x, torch.tensor(lengths)


def expect_equal(ours: tuple[Tensor, Tensor], theirs: Sequence[NDArray[Any]]) -> None:
    np.testing.assert_array_equal(ours[1], theirs[1])
    for got, wanted, length in zip(ours[0], *theirs, strict=True):
        np.testing.assert_allclose(got[:length], wanted[:length], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "lengths", [[7], [9], [10], [11], [12], [64], [333], [1000], [100, 57, 9], [400, 13, 399, 10], [9, 1000]]
)
def test_whole_utterances_equal_icefalls(offline: Projected, lengths: list[int]) -> None:
    x, x_lens = batch(lengths)
    ours = offline(x, x_lens)
    assert ours[1].tolist() == [((length - 1) // 2 - 1) // 2 for length in lengths]
    expect_equal(ours, icefall("conformer-offline").run(None, {"x": x.numpy(), "x_lens": x_lens.numpy()}))


@pytest.mark.parametrize("streams", [1, 3])
def test_streams_equal_icefalls(streaming: Streaming, streams: int) -> None:
    session, layout = icefall("conformer-streaming"), streaming.encoder.streaming_layout()
    states = streaming.encoder.initial_states(layout, streams)
    # The streams began at different times, so that they have heard different parts of the left context.
    states[2] += 24 * torch.arange(streams)
    theirs = {
        state.name: tensor.movedim(0, state.batch_axis).numpy()
        for state, tensor in zip(layout.states, states, strict=True)
    }
    for chunk in range(20):
        x, _ = batch([layout.window_frames + chunk] * streams)
        x = x[:, chunk:]
        y, *states = streaming(x, *states)
        wanted, attn, conv = session.run(None, {"x": x.numpy(), **theirs})
        counter = theirs["processed_lens"] + layout.states[2].increment
        theirs = {"cached_attn": attn, "cached_conv": conv, "processed_lens": counter}
        np.testing.assert_allclose(y, wanted, atol=TOLERANCE, rtol=0)
        for state, tensor in zip(layout.states, states, strict=True):
            got = tensor.movedim(0, state.batch_axis)
            np.testing.assert_allclose(got, theirs[state.name], atol=TOLERANCE, rtol=0)


def test_layout_and_metadata_are_those_of_the_exports(offline: Projected, streaming: Streaming) -> None:
    layout = streaming.encoder.streaming_layout()
    for bundle, metadata in (
        ("conformer-offline", offline.encoder.offline_metadata()),
        ("conformer-streaming", layout.metadata),
    ):
        model = onnx.load(BUNDLES / bundle / ENCODER)
        assert dict(metadata) == {entry.key: entry.value for entry in model.metadata_props}
    x, *states = icefall("conformer-streaming").get_inputs()
    assert (layout.window_frames, streaming.encoder.feature_dim) == tuple(x.shape[1:])
    for got, wanted in zip(layout.states, states, strict=True):
        shape = list(got.shape)
        shape.insert(got.batch_axis, "N")  # type: ignore[arg-type]
        assert (got.name, shape) == (wanted.name, wanted.shape)


@pytest.mark.parametrize(("chunk", "left"), [(1, 1), (8, 32), (32, 7)])
def test_other_chunks(streaming: Streaming, chunk: int, left: int) -> None:
    encoder = streaming.encoder
    layout = encoder.streaming_layout(chunk, left)
    assert (layout.window_frames, layout.chunk_frames) == (4 * chunk + 11, 4 * chunk)
    x, _ = batch([layout.window_frames, layout.window_frames])
    y, states = encoder.streaming_forward(x, encoder.initial_states(layout, 2))
    assert y.shape == (2, chunk, encoder.output_dim)
    assert [tuple(state.shape[1:]) for state in states] == [state.shape for state in layout.states]
    assert states[2].tolist() == [chunk, chunk]


@pytest.mark.parametrize(("chunk", "left"), [(0, 64), (16, 0), (-1, None)])
def test_impossible_chunks(streaming: Streaming, chunk: int, left: int | None) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        streaming.encoder.streaming_layout(chunk, left)


def test_causal_convolutions() -> None:
    """An utterance that is one chunk, after nothing, is a whole utterance to a causal encoder."""
    tensors = part(read_checkpoint(BUNDLES / "conformer-streaming" / "epoch-1.pt").tensors, "encoder.")
    x, x_lens = batch([131])
    causal, other = (Conformer.from_tensors(tensors, Recipe(causal=causal)) for causal in (True, None))
    assert causal.config.causal
    chunk, _ = other.streaming_forward(x, other.initial_states(other.streaming_layout(30), 1))
    # Nothing else than the frames at the edges, which streaming throws away, may differ: so they are nothing here.
    for encoder in (causal, other):
        encoder.encoder_embed.register_forward_hook(lambda _, __, y: y[:, 1:-1])
    np.testing.assert_allclose(causal(x, x_lens)[0], chunk, atol=TOLERANCE, rtol=0)
    assert (other(x, x_lens)[0] - chunk).abs().max() > 0.1


SIZES = [
    ConformerConfig(1, 24, 3, 10, 7, SubsamplingConfig(40, (3, 5, 7))),
    ConformerConfig(12, 6, 1, 5, 3, SubsamplingConfig(80, (1, 2, 3))),
    ConformerConfig(2, 30, 5, 62, 1, SubsamplingConfig(24, (8, 4, 2)), causal=True),
]


@pytest.mark.parametrize("config", SIZES)
def test_sizes_come_from_the_tensors(config: ConformerConfig) -> None:
    made = Conformer(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    # What only training has is ignored: stateless5 once mixed the outputs of layers with parameters.
    extra = {"encoder.combiner.linear.0.weight": torch.zeros(3, 3)}
    read = Conformer.from_tensors({**made.state_dict(), **extra}, Recipe(causal=config.causal or None))
    assert read.config == config
    x = torch.randn(2, 50, config.subsampling.feature_dim)
    torch.testing.assert_close(read(x, torch.tensor([50, 31])), made(x, torch.tensor([50, 31])))
    states = read.initial_states(read.streaming_layout(5, 3), 2)
    torch.testing.assert_close(read.streaming_forward(x, states), made.streaming_forward(x, states))


@pytest.mark.parametrize("name", sorted(Conformer(SIZES[0]).state_dict()))
def test_a_missing_tensor_is_named(name: str) -> None:
    tensors = Conformer(SIZES[0]).state_dict()
    del tensors[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        Conformer.from_tensors(tensors)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("encoder.layers.0.self_attn.linear_pos.weight", torch.zeros(24, 23), r"linear_pos.*\[24, 24\]"),
        ("encoder.layers.0.self_attn.pos_bias_u", torch.zeros(5, 5), "divide into 5 heads, got 24"),
        ("encoder.layers.0.conv_module.depthwise_conv.weight", torch.zeros(24, 1, 6), "odd number of frames, got 6"),
        ("encoder_embed.out.weight", torch.zeros(24, 64), "multiple of 7 channels, got 64"),
    ],
)
def test_impossible_shapes(name: str, tensor: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conformer.from_tensors({**Conformer(SIZES[0]).state_dict(), name: tensor})


def test_parameters_are_as_many_as_published() -> None:
    """Icefall counts the scales, which we fold in, and the projections and mixing that only training needs."""
    with torch.device("meta"):
        encoder = Conformer(ConformerConfig(num_layers=18))
        modules: list[nn.Module] = [encoder, Decoder(500, 512, 2, groups=512), Joiner(512, 512, 512, 500)]
        modules += [nn.Linear(512, 500), nn.Linear(512, 500)]
        # In May 2022 six of the layers had a projection of their output before it was mixed with the others'.
        mixing = nn.ModuleList(nn.Linear(512, 512) for _ in range(6))
        small = Conformer(ConformerConfig())
    scaled = [name for module in modules for name, _ in module.named_parameters() if not name.endswith(".eps")]
    # One eps is not learned, so that it is not counted.
    # librispeech/ASR/RESULTS.md, pruned_transducer_stateless5, "Large".
    assert sum(map(parameters, [*modules, mixing])) + len(scaled) - 1 == 118_129_516
    # https://github.com/k2-fsa/icefall/pull/1093: 77.36 M, with the joiner's projection.
    assert parameters(small) + parameters(nn.Linear(512, 512)) == pytest.approx(77.36e6, abs=5e3)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def exported(
    module: nn.Module,
    file: Path,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, dict[int, str]],
) -> tuple[onnxruntime.InferenceSession, set[str]]:
    """A session on the ONNX form of `module`, which is written to `file`, and its operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    model = onnx.load(file)
    return onnxruntime.InferenceSession(file), {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("causal", [False, True])
def test_exports_with_free_batch_and_length(tmp_path: Path, causal: bool) -> None:
    tensors = part(read_checkpoint(BUNDLES / "conformer-offline" / "epoch-1.pt").tensors, "encoder.")
    encoder = Conformer.from_tensors(tensors, Recipe(causal=causal))
    x, x_lens = batch([50, 40])
    axes = {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}, "y": {0: "N", 1: "U"}, "y_lens": {0: "N"}}
    session, operators = exported(encoder, tmp_path / "offline.onnx", {"x": x, "x_lens": x_lens}, ["y", "y_lens"], axes)
    assert not operators & UNWANTED
    for lengths in ([9], [700], [77, 9, 300]):
        x, x_lens = batch(lengths)
        expect_equal(encoder(x, x_lens), session.run(None, {"x": x.numpy(), "x_lens": x_lens.numpy()}))


def test_streaming_exports_with_a_free_batch(tmp_path: Path, streaming: Streaming) -> None:
    layout = streaming.encoder.streaming_layout()
    names = [state.name for state in layout.states]
    x, _ = batch([layout.window_frames] * 2)
    inputs = {"x": x, **dict(zip(names, streaming.encoder.initial_states(layout, 2), strict=True))}
    outputs = ["y", *(f"new_{name}" for name in names)]
    axes = {name: {0: "N"} for name in [*inputs, *outputs]}
    session, operators = exported(streaming, tmp_path / "streaming.onnx", inputs, outputs, axes)
    # No sine: the encoded distances are constants.
    assert not operators & (UNWANTED | {"Sin", "Range"})
    for streams in (1, 5):
        x, _ = batch([layout.window_frames] * streams)
        states = [torch.randn_like(state) for state in streaming.encoder.initial_states(layout, streams)[:2]]
        states.append(17 * torch.arange(streams))
        feed = {"x": x.numpy(), **{name: state.numpy() for name, state in zip(names, states, strict=True)}}
        for got, wanted in zip(session.run(None, feed), streaming(x, *states), strict=True):
            np.testing.assert_allclose(got, wanted, atol=TOLERANCE, rtol=0)
