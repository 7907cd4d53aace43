"""The network of a model in ONNX files, as a checkpoint would give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moulin.bundle.onnx_weights.conformer import conformer
from moulin.bundle.onnx_weights.integers import Integers, as_array
from moulin.bundle.onnx_weights.lstm import lstm
from moulin.bundle.onnx_weights.matching import Match, UnmatchedGraphError
from moulin.bundle.onnx_weights.model_file import Array, WeightFile
from moulin.bundle.onnx_weights.prediction import decoder_weights, has_relu, joiner_weights
from moulin.bundle.onnx_weights.skeleton import Skeleton
from moulin.bundle.onnx_weights.zipformer import zipformer
from moulin.bundle.onnx_weights.zipformer2 import zipformer2
from moulin.bundle.spec import SUBSAMPLING_FACTOR, OnnxModelSpec
from moulin.bundle.untrusted_file import errors_of
from moulin.encoders.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from moulin.encoders.transducer import Transducer

_READERS: dict[str, Callable[[Match, Sequence[int]], Recipe]] = {
    "zipformer2": zipformer2,
    "zipformer": zipformer,
    "conformer": conformer,
    "lstm": lstm,
}


class OnnxWeights:
    """The parameters in a model's three ONNX files, under the names that they have in a checkpoint.

    Finding them reads the graphs alone, and needs no PyTorch; `transducer` reads the weights.
    """

    def __init__(self, spec: OnnxModelSpec) -> None:
        """Raises UnmatchedGraphError, which names a node or a parameter, for graphs that are not Icefall's."""
        self.spec = spec
        encoder, decoder, joiner = (WeightFile(graph.file) for graph in (spec.encoder, spec.decoder, spec.joiner))
        with errors_of(spec.encoder.file):
            of_encoder, self.family, recipe = _encoder_weights(encoder, spec)
        with errors_of(spec.decoder.file):
            of_decoder = decoder_weights(decoder)
        with errors_of(spec.joiner.file):
            of_joiner = joiner_weights(joiner)
        self.arrays: Mapping[str, Array | Integers] = {**of_encoder, **of_decoder, **of_joiner}
        """Views of the mapped files, integers to be dequantised, or what was computed from them."""
        self.recipe = _with_streaming(recipe, spec, self.family, self.arrays)
        self._check_prediction(has_relu(decoder))

    def transducer(self) -> Transducer:
        """The network. Raises UnmatchedGraphError where its parameters do not make the model that the files are."""
        from moulin.encoders.transducer import Transducer

        file = self.spec.encoder.file
        tensors = {name: _tensor(name, values, file) for name, values in self.arrays.items()}
        try:
            transducer = Transducer.from_tensors(tensors, self.recipe)
        except ValueError as error:
            raise UnmatchedGraphError(f"{file} does not fit: {error}") from error
        if self.spec.streaming is not None:
            _check_streaming(transducer, self.spec)
        return transducer

    def _check_prediction(self, relu: bool) -> None:
        """Raise UnmatchedGraphError where decoder and joiner are not those of the files' interface or the family."""
        spec, shapes = self.spec, {name: values.shape for name, values in self.arrays.items()}
        context_size = shapes["decoder.conv.weight"][2] if "decoder.conv.weight" in shapes else 1
        for what, got, expected in (
            ("vocab_size", shapes["decoder.embedding.weight"][0], spec.vocab_size),
            ("vocab_size", shapes["joiner.output_linear.weight"][0], spec.vocab_size),
            ("joiner_dim", shapes["joiner.output_linear.weight"][1], spec.joiner_dim),
            ("context_size", context_size, spec.context_size),
            ("a ReLU in the decoder", relu, context_size > 1 or self.family != "zipformer2"),
        ):
            if got != expected:
                raise UnmatchedGraphError(
                    f"Expected the weights of {spec.decoder.file} to have {what} {expected}, got {got}"
                )


def _encoder_weights(file: WeightFile, spec: OnnxModelSpec) -> tuple[Mapping[str, Array | Integers], str, Recipe]:
    """The encoder's parameters, its family and what they do not tell; the family is tried where the file does not say
    it."""
    skeleton = Skeleton(file, features=spec.encoder.input("x", 0).name)
    layers = _numbers(spec.encoder.metadata.get("num_encoder_layers", ""))
    first: UnmatchedGraphError | None = None
    for family in [spec.family] if spec.family in _READERS else _READERS:
        match = Match(skeleton)
        try:
            recipe = _READERS[family](match, layers)
            return match.finish(), family, recipe
        except UnmatchedGraphError as error:
            first = first or error
    assert first is not None
    raise first


def _with_streaming(
    recipe: Recipe, spec: OnnxModelSpec, family: str, weights: Mapping[str, Array | Integers]
) -> Recipe:
    """`recipe` with the sizes of streaming, as `Encoder.streaming_layout` counts them, from the graph's inputs."""
    recipe = replace(recipe, feature_dim=spec.feature_dim)
    streaming = spec.streaming
    if streaming is None or family == "lstm":
        return recipe
    chunk = streaming.chunk_frames
    left = {state.name: state.shape for state in streaming.states}
    if family == "conformer":
        # See `Conformer.streaming_layout`.
        right = (streaming.window_frames - chunk - 3) // SUBSAMPLING_FACTOR - 2
        return replace(
            recipe,
            causal=True,
            chunk_size=chunk // SUBSAMPLING_FACTOR,
            left_context_frames=left["cached_attn"][1],
            right_context=right,
        )
    names = ("encoder.encoders.0.downsample.bias", "encoder.encoders.0.upsample.bias")
    factor = next((weights[name].shape[0] for name in names if name in weights), 1)
    if family == "zipformer":
        return replace(recipe, causal=True, chunk_size=chunk, left_context_frames=left["cached_key_0"][1] * factor)
    return replace(recipe, chunk_size=chunk // 2, left_context_frames=left["cached_key_0"][0] * factor)


def _check_streaming(transducer: Transducer, spec: OnnxModelSpec) -> None:
    """Raise UnmatchedGraphError where the network's windows and states are not those of the graph's inputs."""
    file, streaming = spec.encoder.file, spec.streaming
    assert streaming is not None
    try:
        layout = transducer.encoder.streaming_layout()
    except ValueError as error:
        raise UnmatchedGraphError(f"{file} does not fit: {error}") from error
    graph = {
        state.name: tuple(size for axis, size in enumerate(state.shape) if axis != state.batch_axis)
        for state in streaming.states
    }
    network = {state.name: state.shape for state in layout.states}
    for name in {**graph, **network}:
        if graph.get(name) != network.get(name):
            raise UnmatchedGraphError(
                f"Expected the state '{name}' of {file} to be {network.get(name)} by its weights, got {graph.get(name)}"
            )
    sizes, expected = ((one.window_frames, one.chunk_frames) for one in (streaming, layout))
    if sizes != expected:
        raise UnmatchedGraphError(f"Expected windows and chunks of {expected} frames in {file}, got {sizes}")


def _tensor(name: str, weight: Array | Integers, file: Path) -> Tensor:
    import torch

    values = as_array(weight)
    tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    in_order = tensor.t() if tensor.ndim == 2 else tensor  # matrices are transposed views of what is in the file
    if tensor.numel() and not all(bool(end.isfinite()) for end in in_order.aminmax()):
        raise UnmatchedGraphError(f"Expected finite numbers in the weights of {file}, got others in '{name}'")
    return tensor


def _numbers(listed: str) -> Sequence[int]:
    """The numbers in "2,2,3"; none where it is something else."""
    parts = listed.split(",")
    return [int(part) for part in parts] if all(part.strip().isdecimal() for part in parts) else []
