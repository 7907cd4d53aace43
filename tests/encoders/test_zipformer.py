"""The Zipformer against Icefall's own exports of the same parameters, and what those exports do not show."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.recipe import Recipe
from moulin.encoders.tensors import part
from moulin.encoders.zipformer import Zipformer, ZipformerConfig
from tests.bundles import BUNDLES

OFFLINE, STREAMING = (BUNDLES / f"zipformer-{form}" for form in ("offline", "streaming"))

# The recipes' defaults, that is the published models.
PUBLISHED = ZipformerConfig(
    num_encoder_layers=(2, 4, 3, 2, 4),
    encoder_dims=(384,) * 5,
    attention_dims=(192,) * 5,
    nhead=(8,) * 5,
    feedforward_dims=(1024, 1024, 2048, 2048, 1024),
    cnn_module_kernels=(31,) * 5,
    downsampling_factors=(1, 2, 4, 8, 2),
)
# With stacks that are skipped and stacks of more channels than their input.
GROWING = ZipformerConfig(
    num_encoder_layers=(1, 2, 1, 1, 1),
    encoder_dims=(16, 16, 24, 24, 32),
    attention_dims=(16, 16, 24, 24, 16),
    nhead=(2, 4, 3, 3, 2),
    feedforward_dims=(20, 24, 28, 20, 16),
    cnn_module_kernels=(3, 5, 7, 9, 3),
    downsampling_factors=(1, 2, 4, 8, 2),
)
ODD = ZipformerConfig(
    num_encoder_layers=(2,),
    encoder_dims=(10,),
    attention_dims=(12,),
    nhead=(3,),
    feedforward_dims=(7,),
    cnn_module_kernels=(1,),
    downsampling_factors=(3,),
    feature_dim=40,
)
FLAT = ZipformerConfig(
    num_encoder_layers=(1, 1, 3),
    encoder_dims=(12, 12, 14),
    attention_dims=(8, 20, 4),
    nhead=(1, 5, 2),
    feedforward_dims=(9, 5, 11),
    cnn_module_kernels=(3, 1, 5),
    downsampling_factors=(1, 1, 4),
    feature_dim=100,
)

# What checkpoints hold before training, the same number everywhere, and another for it: combiners, layers' bypasses.
SCALARS = {"weight1": 0.3, "bypass_scale": 0.8}
# The control flow and the scattered writes that TensorRT does not take or takes slowly.
UNWANTED_OPERATORS = {"If", "Loop", "NonZero", "ScatterND", "ScatterElements", "GatherND"}


@pytest.fixture(scope="module", params=["as trained", "other scalars"])
def scalars(request: pytest.FixtureRequest) -> Mapping[str, float]:
    return SCALARS if request.param == "other scalars" else {}


@pytest.fixture(scope="module")
def tensors(scalars: Mapping[str, float]) -> dict[str, Tensor]:
    return {
        name: torch.tensor(scalars[name.split(".")[-1]]) if name.split(".")[-1] in scalars else tensor
        for name, tensor in read_checkpoint(OFFLINE / "epoch-1.pt").tensors.items()
    }


@pytest.fixture(scope="module")
def encoder(tensors: dict[str, Tensor]) -> Zipformer:
    return Zipformer.from_tensors(part(tensors, "encoder."))


@pytest.fixture(scope="module")
def offline_export(scalars: Mapping[str, float]) -> onnxruntime.InferenceSession:
    return export_session(OFFLINE, scalars)


@pytest.fixture(scope="module")
def streaming_export(scalars: Mapping[str, float]) -> onnxruntime.InferenceSession:
    return export_session(STREAMING, scalars)


@pytest.mark.parametrize(
    "lengths", [[9], [10], [11], [12], [13], [16], [39], [100], [333], [1000], [61, 100, 9], [95, 10, 95, 34]], ids=str
)
def test_whole_utterances_as_icefall_exports_them(
    lengths: list[int],
    tensors: dict[str, Tensor],
    encoder: Zipformer,
    offline_export: onnxruntime.InferenceSession,
) -> None:
    x, x_lens = features(len(lengths), max(lengths)), torch.tensor(lengths)

    expected, expected_lens = run(offline_export, {"x": x, "x_lens": x_lens})
    frames, lens = encoder(x, x_lens)

    assert lens.tolist() == expected_lens.tolist() == [((length - 7) // 2 + 1) // 2 for length in lengths]
    assert frames.shape[:2] == expected.shape[:2]
    for i, length in enumerate(lens.tolist()):
        torch.testing.assert_close(project(tensors, frames)[i, :length], expected[i, :length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_twenty_chunks_of_a_stream_and_all_states_as_icefall_exports_them(
    batch: int,
    tensors: dict[str, Tensor],
    encoder: Zipformer,
    streaming_export: onnxruntime.InferenceSession,
) -> None:
    layout = encoder.streaming_layout()
    states = encoder.initial_states(layout, batch)
    theirs = [tensor.movedim(0, state.batch_axis) for tensor, state in zip(states, layout.states, strict=True)]
    names = [state.name for state in layout.states]

    for _ in range(20):
        x = features(batch, layout.window_frames)
        expected, *theirs = run(streaming_export, {"x": x, **dict(zip(names, theirs, strict=True))})
        frames, states = encoder.streaming_forward(x, states)

        torch.testing.assert_close(project(tensors, frames), expected, atol=1e-5, rtol=0)
        for ours, their, state in zip(states, theirs, layout.states, strict=True):
            torch.testing.assert_close(ours.movedim(0, state.batch_axis), their, atol=1e-5, rtol=0)


def test_metadata_and_states_are_those_of_icefalls_exports(
    encoder: Zipformer,
    offline_export: onnxruntime.InferenceSession,
    streaming_export: onnxruntime.InferenceSession,
) -> None:
    layout = encoder.streaming_layout()
    inputs = streaming_export.get_inputs()

    assert encoder.offline_metadata() == offline_export.get_modelmeta().custom_metadata_map
    assert layout.metadata == streaming_export.get_modelmeta().custom_metadata_map
    assert [state.name for state in layout.states] == [entry.name for entry in inputs[1:]]
    assert inputs[0].shape[1] == layout.window_frames
    for entry, state in zip(inputs[1:], layout.states, strict=True):
        shape = list(state.shape)
        shape.insert(state.batch_axis, "N")  # type: ignore[arg-type]
        assert entry.shape == shape


def test_left_context_is_four_chunks_at_fifty_hertz_unless_told() -> None:
    encoder = random_encoder(GROWING)

    assert encoder.streaming_layout(64).metadata["left_context_len"] == "128,64,32,16,64"
    assert encoder.streaming_layout(64, 32).metadata["left_context_len"] == "32,16,8,4,16"
    assert encoder.streaming_layout(64).window_frames == 71


@pytest.mark.parametrize(("chunk", "left"), [(0, None), (24, None), (-16, None), (32, 0), (32, 12), (32, -8)])
def test_chunks_that_do_not_fill_every_stacks_frames_are_refused(chunk: int, left: int | None) -> None:
    with pytest.raises(ValueError, match="multiple of"):
        random_encoder(GROWING).streaming_layout(chunk, left)


@pytest.mark.parametrize("config", [GROWING, ODD, FLAT])
@pytest.mark.parametrize("causal", [False, True])
def test_sizes_are_read_from_the_shapes(config: ZipformerConfig, causal: bool) -> None:
    source = random_encoder(config, causal)
    training_only = {"encoders.0.layers.0.balancer.count": torch.tensor(7)}

    encoder = Zipformer.from_tensors({**source.state_dict(), **training_only}, Recipe(causal=causal))

    assert encoder.config == config
    assert encoder.feature_dim == config.feature_dim
    assert encoder.output_dim == config.encoder_dims[-1]
    x, x_lens = features(2, 77, config.feature_dim), torch.tensor([77, 50])
    torch.testing.assert_close(encoder(x, x_lens), source(x, x_lens), atol=0, rtol=0)


def test_the_size_of_positional_queries_can_be_told() -> None:
    config = replace(ODD, pos_dim=5)

    tensors = random_encoder(config).state_dict()
    assert Zipformer.from_tensors(tensors, Recipe(pos_head_dim=(5,))).config == config
    assert Zipformer.from_tensors(tensors, Recipe(pos_head_dim=(5,), num_heads=config.nhead)).config == config
    with pytest.raises(ValueError, match="linear_pos"):
        Zipformer.from_tensors(tensors)


@pytest.mark.parametrize(
    "name",
    [
        "encoder_embed.conv.3.bias",
        "encoder_embed.out.weight",
        "encoders.0.layers.0.self_attn.out_proj.weight",
        "encoders.1.upsample.bias",
        "encoders.1.encoder.layers.1.norm_final.eps",
        "encoders.2.downsample.extra_proj.weight",
        "skip_modules.4.weight1",
        "downsample_output.query",
    ],
)
def test_a_missing_tensor_is_named(name: str) -> None:
    tensors = random_encoder(GROWING).state_dict()
    del tensors[name]

    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        Zipformer.from_tensors(tensors)


def test_what_is_no_zipformer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder_embed\.out\.weight"):
        Zipformer.from_tensors({})
    with pytest.raises(ValueError, match=r"encoders\.0\.layers\.0\."):
        Zipformer.from_tensors({"encoder_embed.out.weight": torch.zeros(8, 2432)})


@pytest.mark.parametrize(
    "wrong",
    [{"cnn_module_kernels": (4,)}, {"encoder_dims": (9,)}, {"nhead": (4,)}, {"nhead": (3, 3)}],
    ids=str,
)
def test_impossible_sizes_are_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        replace(ODD, **wrong)  # type: ignore[arg-type]


def test_the_published_model_has_its_number_of_parameters() -> None:
    """70,369,391 with a decoder and a joiner of 512, 500 tokens, and the two projections for the pruned loss."""
    with torch.device("meta"):
        encoder = Zipformer(PUBLISHED)
    decoder = 500 * 512 + 512 * 4 * 2  # the embedding; a convolution of two tokens, four channels a group
    joiner = (384 * 512 + 512) + (512 * 512 + 512) + (512 * 500 + 500)
    simple_projections = (384 * 500 + 500) + (512 * 500 + 500)

    parameters = sum(parameter.numel() for parameter in encoder.parameters())

    assert parameters == 68_944_019
    assert parameters + decoder + joiner + simple_projections == 70_369_391
    assert not list(encoder.buffers())


@pytest.mark.parametrize(
    ("factors", "skips"),
    [
        ((1, 2, 4, 8, 2), (None, None, None, None, 1)),
        ((1, 2, 4, 8, 4, 2), (None, None, None, None, 2, 1)),
        ((4, 8, 8, 2), (None, None, None, 0)),
        ((1, 2, 2), (None, None, None)),
        ((2, 1), (None, None)),
    ],
)
def test_stacks_at_lower_rates_are_skipped(factors: tuple[int, ...], skips: tuple[int | None, ...]) -> None:
    config = ZipformerConfig(*((8,) * len(factors),) * 3, *((1,) * len(factors),) * 3, factors)

    assert config.skips == skips


def test_a_skip_leaves_out_the_stacks_between() -> None:
    encoder = random_encoder(GROWING)
    x, x_lens = features(1, 90), torch.tensor([90])
    encoder.skip_modules[4].weight1.fill_(1.0)  # type: ignore[operator]
    before, _ = encoder(x, x_lens)

    encoder.encoders[3].encoder.layers[0].bypass_scale.add_(0.1)  # type: ignore[union-attr, index]
    unchanged, _ = encoder(x, x_lens)
    encoder.encoders[1].encoder.layers[0].bypass_scale.add_(0.1)  # type: ignore[union-attr, index]
    changed, _ = encoder(x, x_lens)

    torch.testing.assert_close(unchanged, before, atol=0, rtol=0)
    assert not torch.allclose(changed, before)


def test_more_channels_than_the_input_has_are_projected_from_all_frames_of_a_group() -> None:
    downsample = random_encoder(GROWING).encoders[2].downsample
    assert isinstance(downsample, nn.Module)
    x = torch.randn(2, 6, 16)  # a group of four frames, and one of two
    filled = torch.cat((x, x[:, 5:], x[:, 5:]), dim=1)

    y = downsample(x)

    for group in (0, 1):
        frames = filled[:, 4 * group : 4 * group + 4]
        weights = (frames @ downsample.query).softmax(dim=1)  # type: ignore[operator]
        torch.testing.assert_close(y[:, group, :16], (weights.unsqueeze(2) * frames).sum(dim=1))
        torch.testing.assert_close(y[:, group, 16:], frames.reshape(2, 64) @ downsample.extra_proj.weight.T)  # type: ignore[operator, union-attr]


def test_causal_is_one_chunk_of_the_whole_utterance_without_left_context() -> None:
    encoder = random_encoder(GROWING, causal=True)
    frames = 7 + 2 * 48
    x = features(2, frames)
    layout = encoder.streaming_layout()
    attended = ["key" in state.name or "val" in state.name for state in layout.states]
    states = [
        state[:, :, :0] if without_frames else state
        for state, without_frames in zip(encoder.initial_states(layout, 2), attended, strict=True)
    ]

    whole, _ = encoder(x, torch.tensor([frames, frames]))
    chunk, _ = encoder.streaming_forward(x, states)

    torch.testing.assert_close(whole, chunk, atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_does_not_reach_the_frames_before_it(causal: bool) -> None:
    encoder = random_encoder(replace(GROWING, downsampling_factors=(1, 2, 2, 2, 2)), causal)
    short = 7 + 2 * 20  # fills every group of frames
    x = features(1, 90)

    alone, _ = encoder(x[:, :short], torch.tensor([short]))
    padded, lens = encoder(torch.cat((x, x)), torch.tensor([90, short]))

    assert lens.tolist() == [21, 10]
    torch.testing.assert_close(padded[1, :10], alone[0], atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Constant folding")
@pytest.mark.parametrize("causal", [False, True])
def test_exports_for_utterances_of_any_number_and_length(causal: bool) -> None:
    encoder = random_encoder(GROWING, causal)
    dynamic = {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}, "frames": {0: "N", 1: "U"}, "lens": {0: "N"}}

    session, operators = exported(encoder, (features(2, 60), torch.tensor([60, 50])), ["frames", "lens"], dynamic)

    assert not operators & UNWANTED_OPERATORS
    for lengths in ([9], [30, 11, 200]):
        x, x_lens = features(len(lengths), max(lengths)), torch.tensor(lengths)
        frames, lens = encoder(x, x_lens)
        expected, expected_lens = run(session, {"x": x, "x_lens": x_lens})
        assert lens.tolist() == expected_lens.tolist()
        for i, length in enumerate(lens.tolist()):
            torch.testing.assert_close(frames[i, :length], expected[i, :length], atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Constant folding")
def test_exports_for_any_number_of_streams() -> None:
    encoder = random_encoder(GROWING)
    layout = encoder.streaming_layout()
    names = [state.name for state in layout.states]
    outputs = ["frames", *(f"new_{name}" for name in names)]
    dynamic = {name: {0: "N"} for name in ("x", *names, *outputs)}
    sample = (features(2, layout.window_frames), *encoder.initial_states(layout, 2))

    session, operators = exported(Step(encoder), sample, outputs, dynamic, names)

    assert not operators & UNWANTED_OPERATORS
    states = encoder.initial_states(layout, 5)
    for _ in range(3):
        x = features(5, layout.window_frames)
        results = run(session, {"x": x, **dict(zip(names, states, strict=True))})
        frames, states = encoder.streaming_forward(x, states)
        for ours, theirs in zip((frames, *states), results, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


class Step(nn.Module):
    """`streaming_forward` as the exporter wants it: tensors in, tensors out."""

    def __init__(self, encoder: Zipformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        frames, new = self.encoder.streaming_forward(x, states)
        return frames, *new


def features(batch: int, frames: int, dim: int = 80) -> Tensor:
    """Log energies, roughly: nothing is silent and nothing is the same twice."""
    return torch.randn(batch, frames, dim, generator=torch.Generator().manual_seed(batch * frames)) * 3 - 5


def random_encoder(config: ZipformerConfig, causal: bool = False) -> Zipformer:
    """As torch initialises it, and nothing at a value that hides what it does."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = Zipformer(config, causal).eval().requires_grad_(False)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    return encoder


def project(tensors: Mapping[str, Tensor], frames: Tensor) -> Tensor:
    """Icefall folds this part of the joiner into the encoder."""
    return nn.functional.linear(frames, tensors["joiner.encoder_proj.weight"], tensors["joiner.encoder_proj.bias"])


def export_session(folder: Path, scalars: Mapping[str, float]) -> onnxruntime.InferenceSession:
    """Icefall's encoder of a bundle with the values of `scalars` in it.

    The exporter has folded 1 - weight1 into a number without a name, the only one: other scalars are layers' outputs.
    """
    model = onnx.load(folder / "encoder-epoch-1-avg-1.onnx")
    for tensor in model.graph.initializer:
        value = scalars.get(tensor.name.split(".")[-1])
        if scalars and tensor.name.startswith("onnx::Mul_") and not tensor.dims:
            value = 1 - scalars["weight1"]
        if value is not None:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((0 * array + value).astype(array.dtype), tensor.name))
    return session(model.SerializeToString())


def exported(
    module: nn.Module,
    sample: tuple[Tensor, ...],
    outputs: list[str],
    dynamic: dict[str, dict[int, str]],
    states: Sequence[str] = ("x_lens",),
) -> tuple[onnxruntime.InferenceSession, set[str]]:
    """`module` as the exporter for TorchScript writes it, and the operators in it."""
    file = io.BytesIO()
    torch.onnx.export(
        module,
        sample,
        file,  # type: ignore[arg-type]
        input_names=["x", *states],
        output_names=outputs,
        dynamic_axes=dynamic,
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load_from_string(file.getvalue())
    return session(file.getvalue()), {node.op_type for node in model.graph.node}


def session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    feeds = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
    return [torch.from_numpy(output) for output in session.run(None, feeds)]
