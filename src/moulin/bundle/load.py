"""Reading of a model directory as a checked `ModelSpec`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from moulin.bundle.choice import MissingNetworkError, Mode, Wish
from moulin.bundle.files import BundleFiles, Precision, find_bundle_files
from moulin.bundle.foreign import refuse_foreign, refuse_foreign_decoder, refuse_swapped
from moulin.bundle.onnx_files import CTC_OUTPUT
from moulin.bundle.onnx_graph import OnnxGraph, TensorSpec, read_onnx_graph
from moulin.bundle.spec import SUBSAMPLING_FACTOR, ModelSpec, OnnxModelSpec, StateSpec, StreamingSpec
from moulin.bundle.tokens import MOST_TOKENS, read_tokens
from moulin.bundle.untrusted_file import errors_of
from moulin.errors import BundleError
from moulin.quoting import quoted

_MOST_CONTEXT, _MOST_CHANNELS, _MOST_WINDOW = 64, 65_536, 1_000_000
"""Tokens of a decoder's context, channels or features of a frame, frames of a window: far beyond any model, and small
enough for what is allocated from them."""
_MOST_STATE_BYTES = 1 << 30
"""Recurrent states of one stream; those of Zipformer2 M take 3 MB."""

FAMILIES = ("conformer", "zipformer", "zipformer2", "lstm")

# The batch axis of each streaming state, by the state's name without its number, from the recipes' export scripts. The
# graph does not tell it: an export without dynamic axes has size 1 there.
_BATCH_AXES: dict[str, dict[str, int]] = {
    "conformer": {"cached_attn": 2, "cached_conv": 2, "processed_lens": 0},
    "zipformer": {
        "cached_len": 1,
        "cached_avg": 1,
        "cached_key": 2,
        "cached_val": 2,
        "cached_val2": 2,
        "cached_conv1": 1,
        "cached_conv2": 1,
    },
    "zipformer2": {
        "cached_key": 1,
        "cached_nonlin_attn": 1,
        "cached_val1": 1,
        "cached_val2": 1,
        "cached_conv1": 0,
        "cached_conv2": 0,
        "embed_states": 0,
        "processed_lens": 0,
    },
    "lstm": {"state0": 1, "state1": 1},
}


def load_bundle(
    model: Path, *, precision: Precision | None = None, expect: Literal["offline", "streaming"] | None = None
) -> OnnxModelSpec:
    """Read and check the model in `model` (a directory, or the encoder file in one).

    Raises BundleError, in one sentence with a hint, for anything missing, damaged or inconsistent, and where
    `expect` names the other kind of model.
    """
    with errors_of(model):
        return _load(model, precision, expect)


def _load(model: Path, precision: Precision | None, expect: Literal["offline", "streaming"] | None) -> OnnxModelSpec:
    files = _find(model, precision, expect)
    encoder, decoder, joiner = (read_onnx_graph(f) for f in (files.encoder, files.decoder, files.joiner))
    refuse_swapped(encoder, decoder, joiner)
    refuse_swapped(encoder, decoder, joiner)
    refuse_foreign(encoder)
    refuse_foreign_decoder(decoder)

    context_size = _fact(decoder, "context_size", decoder.input("y", 0), axis=1, most=_MOST_CONTEXT)
    vocab_size = _fact(decoder, "vocab_size", joiner.output("logit", 0), axis=-1, most=MOST_TOKENS)
    joiner_dim = _fact(joiner, "joiner_dim", joiner.input("encoder_out", 0), axis=-1, most=_MOST_CHANNELS)
    for graph, tensor in (
        (encoder, encoder.output("encoder_out", 0)),
        (decoder, decoder.output("decoder_out", 0)),
        (joiner, joiner.input("decoder_out", 1)),
    ):
        _expect_size(graph, tensor, -1, joiner_dim, "joiner_dim of the joiner")
    _expect_size(joiner, joiner.output("logit", 0), -1, vocab_size, "vocab_size of the decoder")

    feature_dim = check_input(encoder)
    family = encoder.metadata.get("model_type", "unknown")
    streaming = streaming_spec(encoder, family, encoder.output("encoder_out", 0).name)
    ctc_output = _ctc_output(encoder, vocab_size)
    spec = OnnxModelSpec(
        files=files,
        family=family,
        encoder=encoder,
        decoder=decoder,
        joiner=joiner,
        tokens=read_tokens(files.tokens, vocab_size, files.bpe_model),
        feature_dim=feature_dim,
        vocab_size=vocab_size,
        context_size=context_size,
        joiner_dim=joiner_dim,
        streaming=streaming,
        ctc_output=ctc_output,
        has_ctc_head=ctc_output is not None,
    )
    expect_mode(spec, expect, f"{family} in {spec.path}")
    return spec


def expect_mode(spec: ModelSpec, expect: Mode | None, what: str) -> None:
    """Raises BundleError where `spec`, which the message calls `what`, is not for the use `expect`."""
    if expect is not None and spec.mode != expect:
        article = "an" if expect == "offline" else "a"
        raise BundleError(
            f"Expected {article} {expect} model, got the {spec.mode} {what}",
            hint=f"export the checkpoint for {expect} use, or pass another folder",
        )


def check_input(encoder: OnnxGraph) -> int:
    """The features of a frame in the encoder's x. Raises BundleError where x is no batch of feature frames."""
    x = encoder.input("x", 0)
    if len(x.shape) != 3 or not isinstance(x.shape[2], int):
        raise BundleError(f"Expected x of {encoder.file} to be [N, T, feature_dim], got {quoted(list(x.shape))}")
    if not 0 < x.shape[2] <= _MOST_CHANNELS:
        raise BundleError(f"Expected 1 to {_MOST_CHANNELS:,} features in x of {encoder.file}, got {x.shape[2]:,}")
    return x.shape[2]


def _find(model: Path, precision: Precision | None, expect: Literal["offline", "streaming"] | None) -> BundleFiles:
    """`find_bundle_files`; where the joiner is missing, the error names the other kind of model if it is known."""
    try:
        return find_bundle_files(model, precision, wish=Wish(mode=expect))
    except MissingNetworkError as error:
        if "joiner" in error.missing:
            folder = model if model.is_dir() else model.parent
            for encoder in sorted(folder.glob("*encoder*.onnx"))[:1]:
                refuse_foreign(read_onnx_graph(encoder))
        raise


def _fact(graph: OnnxGraph, key: str, tensor: TensorSpec, axis: int, most: int) -> int:
    """A dimension of 1 to `most` from the metadata `key`, else from the `axis` of `tensor`."""
    value = graph.metadata_int(key)
    if value is None:
        size = tensor.shape[axis] if len(tensor.shape) > 1 else "?"
        if not isinstance(size, int):
            raise BundleError(
                f"{graph.file} has no '{key}' in its metadata, and its shapes do not contain it",
                hint="export it again with Icefall's export-onnx.py, which writes the metadata",
            )
        value = size
    if value < 1:
        raise BundleError(f"Expected '{key}' of {graph.file} to be positive, got {value}")
    if value > most:
        raise BundleError(f"Expected '{key}' of {graph.file} to be at most {most:,}, got {value:,}")
    return value


def _expect_size(graph: OnnxGraph, tensor: TensorSpec, axis: int, size: int, what: str) -> None:
    got = tensor.shape[axis] if tensor.shape else "nothing"
    if isinstance(got, int) and got != size:
        raise BundleError(
            f"Expected {tensor.name} of {graph.file} to have {size} channels ({what}), got {got}",
            hint="the encoder, decoder and joiner must come from the same export",
        )


def streaming_spec(encoder: OnnxGraph, family: str, out: str) -> StreamingSpec | None:
    """The chunks and states of a streaming encoder; None for an offline one. `out` is the name of the output with the
    frames. An offline encoder has the input x and, in nearly every export, x_lens. Raises BundleError."""
    x = encoder.input("x", 0)
    states = [tensor for tensor in encoder.inputs if tensor.name not in (x.name, "x_lens")]
    if not states or (len(encoder.inputs) == 2 and len(states) == 1 and len(states[0].shape) == 1):
        if isinstance(x.shape[1], int):
            raise BundleError(
                f"{encoder.file} takes exactly {x.shape[1]} frames and no states: it is a fixed-length export",
                hint="export it with a dynamic time axis (export-onnx.py without --max-len)",
            )
        return None
    if family not in _BATCH_AXES:
        raise BundleError(
            f"Expected model_type {', '.join(FAMILIES)} in the metadata of the streaming encoder {encoder.file}, "
            f"got {quoted(family)}",
            hint="export it again with the recipe's export-onnx-streaming.py",
        )
    window_frames = _fact(encoder, "T", x, axis=1, most=_MOST_WINDOW)
    if isinstance(x.shape[1], int) and x.shape[1] != window_frames:
        raise BundleError(f"Expected x of {encoder.file} to have {window_frames} frames, its 'T', got {x.shape[1]}")
    chunk_frames = _required_int(encoder, "decode_chunk_len")
    if not 0 < chunk_frames <= window_frames:
        raise BundleError(
            f"Expected 'decode_chunk_len' of {encoder.file} to be 1 to T, which is {window_frames}, got {chunk_frames}"
        )
    # The Conformer's export returns all states but the frame counter; its `chunk_size` is in encoder frames.
    counter = "processed_lens" if family == "conformer" else None
    outputs = _state_outputs(encoder, [tensor.name for tensor in states if tensor.name != counter], out)
    increment = chunk_frames // SUBSAMPLING_FACTOR
    specs = tuple(
        _state_spec(encoder, family, tensor, outputs.get(tensor.name), 0 if tensor.name != counter else increment)
        for tensor in states
    )
    if (size := sum(spec.size_bytes for spec in specs)) > _MOST_STATE_BYTES:
        raise BundleError(
            f"Expected at most {_MOST_STATE_BYTES:,} bytes of states a stream in {encoder.file}, got {size:,}"
        )
    return StreamingSpec(window_frames=window_frames, chunk_frames=chunk_frames, states=specs)


def _state_outputs(encoder: OnnxGraph, states: list[str], out: str) -> dict[str, str]:
    """The name of the output with each state's next value: by name, else by position as in sherpa-onnx."""
    apart = out, "encoder_out", CTC_OUTPUT
    outputs = [tensor.name for tensor in encoder.outputs if tensor.name not in apart]
    if len(outputs) != len(states):
        raise BundleError(
            f"Expected {encoder.file} to return {len(states)} states, got {len(outputs)} outputs besides encoder_out"
        )
    if {f"new_{state}" for state in states} == set(outputs):
        return {state: f"new_{state}" for state in states}
    return dict(zip(states, outputs, strict=True))


def _ctc_output(encoder: OnnxGraph, vocab_size: int) -> str | None:
    """The output with a CTC head's log-probabilities; None where there is none."""
    for tensor in encoder.outputs:
        if tensor.name == CTC_OUTPUT:
            _expect_size(encoder, tensor, -1, vocab_size, "vocab_size of the decoder")
            return tensor.name
    return None


def _required_int(graph: OnnxGraph, key: str) -> int:
    value = graph.metadata_int(key)
    if value is None or value < 1:
        raise BundleError(
            f"{graph.file} has no '{key}' in its metadata",
            hint="export it again with the recipe's export-onnx-streaming.py, which writes it",
        )
    return value


def _state_spec(encoder: OnnxGraph, family: str, tensor: TensorSpec, output: str | None, increment: int) -> StateSpec:
    kind = re.sub(r"_\d+$", "", tensor.name)
    batch_axis = _BATCH_AXES[family].get(kind)
    if batch_axis is None or batch_axis >= len(tensor.shape):
        raise BundleError(
            f"{encoder.file} has a state '{tensor.name}' {quoted(list(tensor.shape))} that no {family} has"
        )
    shape = [1 if axis == batch_axis else size for axis, size in enumerate(tensor.shape)]
    if not all(isinstance(size, int) for size in shape):
        raise BundleError(f"Expected only the batch axis of '{tensor.name}' in {encoder.file} to be dynamic")
    return StateSpec(tensor.name, tensor.dtype, tuple(int(size) for size in shape), batch_axis, output, increment)
