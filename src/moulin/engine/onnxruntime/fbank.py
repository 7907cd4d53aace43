"""Batched fbank on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moulin.arrays import Floats
from moulin.audio.batched_fbank import EPSILON, BatchedFbank
from moulin.engine.onnxruntime.session import new_session

_OPSET, _IR_VERSION = 17, 8  # old enough for every ONNX Runtime that moulin supports


class OnnxRuntimeFbank:
    """`BatchedFbank` as a session, on one thread or a GPU."""

    def __init__(self, fbank: BatchedFbank, device: str) -> None:
        """Raises EngineError where ONNX Runtime or the device does not work."""
        self._session = new_session(Path("fbank.onnx"), device, 1, _model(fbank))

    def __call__(self, frames: Floats) -> Floats:
        """Features of frames float32 [N, L]: float32 [N, num_mel_bins]."""
        features: Floats = self._session.run(["fbank"], {"frames": frames})[0]
        return features


def _model(fbank: BatchedFbank) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    length, num_mel_bins = len(fbank.spectrum), fbank.mel.shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["frames", "spectrum"], ["spectra"]),
            helper.make_node("Mul", ["spectra", "spectra"], ["power"]),
            helper.make_node("MatMul", ["power", "mel"], ["energies"]),
            helper.make_node("Max", ["energies", "epsilon"], ["floored"]),
            helper.make_node("Log", ["floored"], ["fbank"]),
        ],
        "fbank",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["N", length])],
        [helper.make_tensor_value_info("fbank", TensorProto.FLOAT, ["N", num_mel_bins])],
        [
            numpy_helper.from_array(fbank.spectrum, "spectrum"),
            numpy_helper.from_array(fbank.mel, "mel"),
            numpy_helper.from_array(np.array(EPSILON, np.float32), "epsilon"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
