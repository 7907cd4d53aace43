"""Models in ONNX files, and runs of them by ONNX Runtime and by the network made of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.fbank import Fbank, FbankOptions
from moulin.bundle.spec import OnnxModelSpec
from moulin.encoders.transducer import Transducer
from moulin.evaluate.manifest import demo_clips
from tests.bundles import BUNDLES, MORE_OFFLINE, MORE_STREAMING, OFFLINE, STREAMING

ALL = (*OFFLINE, *MORE_OFFLINE, *STREAMING, *MORE_STREAMING)


def encoder_of(bundle: str) -> Path:
    """The fp32 encoder of a bundle, beside which there are a decoder, a joiner and a checkpoint."""
    (encoder,) = (file for file in (BUNDLES / bundle).glob("encoder*.onnx") if "int8" not in file.name)
    return encoder


def outputs(model: onnx.ModelProto | Path, inputs: dict[str, Any]) -> dict[str, Floats]:
    """ONNX Runtime's outputs, by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


def largest_difference(spec: OnnxModelSpec, encoder: onnx.ModelProto | Path, network: Transducer, x: Floats) -> float:
    """Between the encoder frames of `network` and of the graph `encoder`, in units of the largest. `x` [T, F] are the
    features of one recording, or of 4 chunks."""
    with torch.inference_mode():
        if spec.streaming is None:
            lengths = np.array([len(x)], dtype=np.int64)
            wanted = outputs(encoder, {"x": x[None], "x_lens": lengths})["encoder_out"]
            ours = network.encode(torch.from_numpy(x[None]), torch.from_numpy(lengths))[0].numpy()
            return float(np.abs(ours - wanted).max() / max(1.0, np.abs(wanted).max()))
        return max(_of_chunks(spec, encoder, network, x))


def _of_chunks(spec: OnnxModelSpec, encoder: onnx.ModelProto | Path, network: Transducer, x: Floats) -> list[float]:
    streaming = spec.streaming
    assert streaming is not None
    states = network.encoder.initial_states(network.encoder.streaming_layout(), 1)
    theirs: dict[str, Any] = {state.name: np.zeros(state.shape, state.dtype) for state in streaming.states}
    differences = []
    for begin in range(0, 4 * streaming.chunk_frames, streaming.chunk_frames):
        window = x[None, begin : begin + streaming.window_frames]
        wanted = outputs(encoder, {"x": window, **theirs})
        for state in streaming.states:
            theirs[state.name] = wanted[state.output] if state.output else theirs[state.name] + state.increment
        ours, states = network.encoder.streaming_forward(torch.from_numpy(window), states)
        frames = network.joiner.encoder_proj(ours).numpy()
        scale = max(1.0, float(np.abs(wanted["encoder_out"]).max()))
        differences.append(float(np.abs(frames - wanted["encoder_out"]).max()) / scale)
    return differences


@pytest.fixture(scope="session")
def features() -> Floats:
    """Of speech, 5 s: [T, 80]."""
    return Fbank(FbankOptions())(read_audio(demo_clips()[0].audio)[:80_000])
