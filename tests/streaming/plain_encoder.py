"""A streaming encoder run as plainly as can be: one stream, straight on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from moulin.arrays import Floats

_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def plain_session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


class PlainEncoder:
    """The encoder as the recipes' `onnx_pretrained-streaming.py` run it.

    All states are zeros first and go in as they came out, by name. Only the Conformer's `processed_lens` does not
    come out: it is how many encoder frames came before this chunk, as in Icefall's `streaming_decode.py` (its ONNX
    script counts the chunk itself too, which shows the first chunk 16 rows of a past that it does not have).
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        metadata = session.get_modelmeta().custom_metadata_map
        self._session = session
        self._chunk_size = int(metadata.get("chunk_size", 0))
        self.window_frames, self.chunk_frames = int(metadata["T"]), int(metadata["decode_chunk_len"])
        self.states: dict[str, Any] = {
            value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape], _DTYPES[value.type])
            for value in session.get_inputs()[1:]
        }

    def __call__(self, window: Floats) -> Floats:
        """[window_frames, feature_dim] to [T', joiner_dim]."""
        names = [value.name for value in self._session.get_outputs()]
        outputs = dict(zip(names, self._session.run(names, {"x": window[None], **self.states}), strict=True))
        encoder_out: Floats = outputs.pop("encoder_out")[0]
        for name, state in self.states.items():
            self.states[name] = outputs.pop(f"new_{name}") if f"new_{name}" in outputs else state + self._chunk_size
        assert not outputs
        return encoder_out
