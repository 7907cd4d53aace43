"""Export of a transducer to its ONNX files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from moulin.bundle.onnx_files import CTC_OUTPUT, OnnxFiles
from moulin.encoders.encoder import StreamingLayout
from moulin.encoders.lstm import Lstm
from moulin.encoders.transducer import Transducer
from moulin.errors import OptionsError
from moulin.export.onnx_graphs import OfflineEncoder, ProjectedDecoder, StreamingEncoder

_OPSET = 13
"""The opset of Icefall's exports."""
_TRACED_FRAMES = 100


def export_onnx(
    transducer: Transducer, directory: Path, label: str, layout: StreamingLayout | None = None
) -> OnnxFiles:
    """Write encoder-, decoder- and joiner-`label`.onnx into `directory`, streaming where there is a `layout`.

    Names of tensors, their order and the metadata are those of Icefall's export-onnx.py and export-onnx-streaming.py.
    A CTC head is one more output of the encoder, the last (`CTC_OUTPUT`).
    Batch and time are dynamic; a streaming encoder's time is fixed to one window. Raises OptionsError for an LSTM
    without a `layout`.
    """
    if layout is None and isinstance(transducer.encoder, Lstm):
        # ONNX's LSTM has no projection, and an unrolled one has a fixed number of steps. Icefall has no offline export
        # of its LSTM either.
        raise OptionsError("An LSTM is exported for streaming only", hint="add --streaming")
    files = OnnxFiles(*(directory / f"{part}-{label}.onnx" for part in ("encoder", "decoder", "joiner")))
    if layout is None:
        _export_offline_encoder(transducer, files.encoder)
    else:
        _export_streaming_encoder(transducer, layout, files.encoder)
    context_size, vocab_size = transducer.decoder.context_size, transducer.decoder.vocab_size
    _export(
        ProjectedDecoder(transducer),
        {"y": torch.zeros(2, context_size, dtype=torch.int64)},
        {"decoder_out": {0: "N"}},
        {"y": {0: "N"}},
        files.decoder,
        {"context_size": str(context_size), "vocab_size": str(vocab_size)},
    )
    joiner_dim = transducer.joiner.joiner_dim
    _export(
        transducer.joiner,
        {"encoder_out": torch.zeros(2, joiner_dim), "decoder_out": torch.zeros(2, joiner_dim)},
        {"logit": {0: "N"}},
        {"encoder_out": {0: "N"}, "decoder_out": {0: "N"}},
        files.joiner,
        {"joiner_dim": str(joiner_dim)},
    )
    return files


def _export_offline_encoder(transducer: Transducer, file: Path) -> None:
    x = torch.zeros(2, _TRACED_FRAMES, transducer.encoder.feature_dim)
    # Another name than for x's time axis, because the lengths differ.
    output_axes = {"encoder_out": {0: "N", 1: "T_out"}, "encoder_out_lens": {0: "N"}}
    if transducer.ctc:
        output_axes[CTC_OUTPUT] = {0: "N", 1: "T_out"}
    _export(
        OfflineEncoder(transducer),
        {"x": x, "x_lens": torch.tensor([_TRACED_FRAMES, _TRACED_FRAMES - 20])},
        output_axes,
        {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}},
        file,
        transducer.encoder.offline_metadata(),
    )


def _export_streaming_encoder(transducer: Transducer, layout: StreamingLayout, file: Path) -> None:
    batch = 2
    inputs = {"x": torch.zeros(batch, layout.window_frames, transducer.encoder.feature_dim)}
    input_axes, output_axes = {"x": {0: "N"}}, {"encoder_out": {0: "N"}}
    initial = transducer.encoder.initial_states(layout, batch)
    for spec, state in zip(layout.states, initial, strict=True):
        inputs[spec.name] = state.movedim(0, spec.batch_axis)
        input_axes[spec.name] = {spec.batch_axis: "N"}
        if not spec.increment:
            output_axes[f"new_{spec.name}"] = {spec.batch_axis: "N"}
    if transducer.ctc:
        output_axes[CTC_OUTPUT] = {0: "N"}
    _export(StreamingEncoder(transducer, layout), inputs, output_axes, input_axes, file, layout.metadata)


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_axes: Mapping[str, Mapping[int, str]],
    input_axes: Mapping[str, Mapping[int, str]],
    file: Path,
    metadata: Mapping[str, str],
) -> None:
    with warnings.catch_warnings():
        # The exporter warns about constants in the trace, and about being superseded.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=list(output_axes),
            dynamic_axes={name: dict(axes) for name, axes in (*input_axes.items(), *output_axes.items())},
            opset_version=_OPSET,
            # The tracing exporter; the other one writes operators that opset 13 does not have.
            dynamo=False,
        )
    model = onnx.load(file)
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, file)


def operators(files: Sequence[Path]) -> set[str]:
    """The types of all operators in `files`."""
    return {node.op_type for file in files for node in onnx.load(file, load_external_data=False).graph.node}
