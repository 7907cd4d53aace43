"""Export of a transducer to its ONNX files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from moulin.bundle.onnx_files import CTC_OUTPUT, OnnxFiles
from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.encoder import Encoder, StreamingLayout
from moulin.encoders.lstm import Lstm
from moulin.encoders.transducer import Transducer
from moulin.errors import OptionsError
from moulin.export.onnx_graphs import OfflineCtc, OfflineEncoder, ProjectedDecoder, StreamingEncoder

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
    if layout is None:
        _refuse_offline_lstm(transducer.encoder)
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


def export_ctc(model: CtcModel, directory: Path, label: str, layout: StreamingLayout | None = None) -> Path:
    """Write a CTC model as model.onnx into `directory`, or where there is a `layout` as ctc-`label`.onnx.

    Names and metadata are those of Icefall's export-onnx-ctc.py and export-onnx-streaming-ctc.py. Raises OptionsError
    for an LSTM without a `layout`.
    """
    if layout is not None:
        file = directory / f"ctc-{label}.onnx"
        _export_streaming_encoder(model, layout, file)
        return file
    _refuse_offline_lstm(model.encoder)
    file, metadata = directory / "model.onnx", model.encoder.offline_metadata()
    x = torch.zeros(2, _TRACED_FRAMES, model.encoder.feature_dim)
    of_ctc = {key: f"{metadata[key]}{suffix}" for key, suffix in (("model_type", "_ctc"), ("comment", " CTC"))}
    _export(
        OfflineCtc(model),
        {"x": x, "x_lens": torch.tensor([_TRACED_FRAMES, _TRACED_FRAMES - 20])},
        {"log_probs": {0: "N", 1: "T_out"}, "log_probs_len": {0: "N"}},
        {"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}},
        file,
        {**metadata, **of_ctc},
    )
    return file


def _refuse_offline_lstm(encoder: Encoder) -> None:
    if isinstance(encoder, Lstm):
        # ONNX's LSTM has no projection, and an unrolled one has a fixed number of steps. Icefall has no offline export
        # of its LSTM either.
        raise OptionsError("An LSTM is exported for streaming only", hint="add --streaming")


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


def _export_streaming_encoder(model: Transducer | CtcModel, layout: StreamingLayout, file: Path) -> None:
    batch, metadata = 2, dict(layout.metadata)
    ctc_alone = isinstance(model, CtcModel)
    if ctc_alone:
        metadata["comment"] = f"streaming ctc {model.encoder.family}"
    inputs = {"x": torch.zeros(batch, layout.window_frames, model.encoder.feature_dim)}
    input_axes, output_axes = {"x": {0: "N"}}, {"log_probs" if ctc_alone else "encoder_out": {0: "N"}}
    initial = model.encoder.initial_states(layout, batch)
    for spec, state in zip(layout.states, initial, strict=True):
        inputs[spec.name] = state.movedim(0, spec.batch_axis)
        input_axes[spec.name] = {spec.batch_axis: "N"}
        if not spec.increment:
            output_axes[f"new_{spec.name}"] = {spec.batch_axis: "N"}
    if model.ctc and not ctc_alone:
        output_axes[CTC_OUTPUT] = {0: "N"}
    _export(StreamingEncoder(model, layout), inputs, output_axes, input_axes, file, metadata)


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
