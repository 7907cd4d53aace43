"""The test models with a CTC head, the blank's bias raised so far that a wanted share of frames is skipped.

What is expected of them is computed from Icefall's own ONNX exports, of which each head has a whole encoder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose, helper

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank
from moulin.bundle.transducer import load_transducer
from moulin.export.to_onnx import export_onnx
from tests.bundles import BUNDLES
from tests.icefall import run, session

SHARES = (0.0, 0.3, 0.6, 0.95, 1.0)
THRESHOLD = 0.95
OFFLINE, STREAMING = BUNDLES / "zipformer2-ctc-offline", BUNDLES / "zipformer2-ctc-streaming"


def raised_checkpoint(bundle: Path, bias: float, to: Path) -> Path:
    """A folder with Icefall's checkpoint of `bundle`, `bias` added to the blank of its CTC head, and tokens.txt.

    Of the streaming one with the chunk and left context of Icefall's export.
    """
    to.mkdir(parents=True)
    content = torch.load(bundle / "epoch-1.pt", weights_only=True)
    content["model"]["ctc_output.1.bias"][0] += bias
    if bundle == STREAMING:
        content |= {"chunk_size": "16", "left_context_frames": "64", "causal": True}
    torch.save(content, to / "epoch-1.pt")
    (to / "tokens.txt").write_bytes((bundle / "tokens.txt").read_bytes())
    return to


@cache
def _exported(bundle: Path) -> bytes:
    """The encoder of Icefall's checkpoint of `bundle` as moulin exports it, with its CTC head."""
    transducer = load_transducer([bundle / "epoch-1.pt"])
    layout = transducer.encoder.streaming_layout(16, 64) if bundle == STREAMING else None
    with TemporaryDirectory() as folder:
        return export_onnx(transducer, Path(folder), "exported", layout).encoder.read_bytes()


def raised_export(bundle: Path, bias: float, to: Path) -> Path:
    """A folder with moulin's export of `bundle`, `bias` added to the blank of its CTC head, and tokens.txt."""
    shutil.copytree(bundle, to, ignore=shutil.ignore_patterns("encoder*", "*.pt", "model.onnx", "ctc*"))
    model = onnx.load_from_string(_exported(bundle))
    [parameter] = [each for each in model.graph.initializer if each.name.endswith("ctc_output.1.bias")]
    values = onnx.numpy_helper.to_array(parameter).copy()
    values[0] += bias
    parameter.CopyFrom(onnx.numpy_helper.from_array(values, parameter.name))
    [encoder] = bundle.glob("encoder*.onnx")
    onnx.save(model, to / encoder.name)
    return to


def bias_for(share: float, log_probs: Floats) -> float:
    """The bias with which `share` of the frames of `log_probs` [T, vocab_size] have a blank of THRESHOLD or more."""
    blank = log_probs[:, 0].astype(np.float64)
    odds = np.sort(blank - np.log1p(-np.exp(blank)))[::-1]
    wanted = np.log(THRESHOLD / (1 - THRESHOLD))
    count = round(share * len(odds))
    if count in (0, len(odds)):
        return float(wanted - odds[0] - 1 if count == 0 else wanted - odds[-1] + 1)
    return float(wanted - (odds[count - 1] + odds[count]) / 2)  # between two frames, so that rounding decides nothing


def raised(log_probs: Floats, bias: float) -> Floats:
    """`log_probs` [..., vocab_size] as they are with `bias` added to the blank."""
    logits = log_probs.astype(np.float64)
    logits[..., 0] += bias
    shifted: Floats = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return shifted


@dataclass(frozen=True)
class Utterance:
    """An utterance as Icefall's two offline exports hear it."""

    waveform: Floats

    @cached_property
    def features(self) -> Floats:
        return Fbank()(self.waveform)

    @cached_property
    def encoder_out(self) -> Floats:
        return self._run("encoder-epoch-1-avg-1.onnx")

    @cached_property
    def log_probs(self) -> Floats:
        return self._run("model.onnx")

    def _run(self, name: str) -> Floats:
        out: Floats = run(session(OFFLINE / name), self.features[None], np.array([len(self.features)]))[0][0]
        return out

    def spoken(self, bias: float) -> NDArray[np.int64]:
        """The numbers of the frames that are not skipped."""
        return np.flatnonzero(raised(self.log_probs, bias)[:, 0] < np.log(THRESHOLD))


def skipping_encoder(bias: float, to: Path) -> Path:
    """Icefall's encoder and CTC export in one graph that drops the blank frames itself, for sherpa-onnx to decode."""
    encoder, ctc = (onnx.load(OFFLINE / name) for name in ("encoder-epoch-1-avg-1.onnx", "model.onnx"))
    metadata = list(encoder.metadata_props)
    encoder, ctc = compose.add_prefix(encoder, "rnnt_"), compose.add_prefix(ctc, "ctc_")
    graph, beside = encoder.graph, ctc.graph
    for node in beside.node:
        node.input[:] = [{"ctc_x": "rnnt_x", "ctc_x_lens": "rnnt_x_lens"}.get(name, name) for name in node.input]
    graph.node.extend(beside.node)
    graph.initializer.extend(beside.initializer)
    vocab_size = beside.output[0].type.tensor_type.shape.dim[2].dim_value
    added = np.zeros(vocab_size, np.float32)
    added[0] = bias
    constants = {
        "bias": added,
        "zero": np.array(0),
        "log_threshold": np.array(np.log(THRESHOLD), np.float32),
        "first": np.array([0]),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("Add", ["ctc_log_probs", "bias"], ["with_bias"]),
            helper.make_node("LogSoftmax", ["with_bias"], ["normalised"], axis=-1),
            helper.make_node("Gather", ["normalised", "zero"], ["blank"], axis=2),
            helper.make_node("Less", ["blank", "log_threshold"], ["kept"]),
            helper.make_node("Gather", ["kept", "zero"], ["of_one"], axis=0),
            helper.make_node("Compress", ["rnnt_encoder_out", "of_one"], ["encoder_out"], axis=1),
            helper.make_node("Cast", ["kept"], ["counted"], to=onnx.TensorProto.INT64),
            helper.make_node("ReduceSum", ["counted", "axes"], ["encoder_out_lens"], keepdims=0),
        ]
    )
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    joiner_dim = graph.output[0].type.tensor_type.shape.dim[2].dim_value
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("encoder_out", onnx.TensorProto.FLOAT, ["N", "T_kept", joiner_dim]),
            helper.make_tensor_value_info("encoder_out_lens", onnx.TensorProto.INT64, ["N"]),
        ]
    )
    del encoder.metadata_props[:]
    encoder.metadata_props.extend(metadata)
    onnx.save(encoder, to)
    return to


@dataclass(frozen=True)
class Raised:
    """A test model whose CTC head skips a share of the frames, as a checkpoint and as moulin exports it."""

    share: float
    bias: float
    checkpoint: Path
    onnx: Path


def raised_model(bundle: Path, share: float, log_probs: NDArray[np.float32], folder: Path) -> Raised:
    """The model of `bundle` that skips `share` of the frames with `log_probs` [T, vocab_size] by its CTC head."""
    bias = bias_for(share, log_probs)
    checkpoint = raised_checkpoint(bundle, bias, folder / "checkpoint")
    return Raised(share, bias, checkpoint, raised_export(bundle, bias, folder / "onnx"))
