"""A model that only answers, to measure the cost of Triton and the load generator by themselves."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format

from moulin.bundle.spec import ModelSpec
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.triton_repo.offline_config import offline_config
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.streaming_config import streaming_config
from moulin.triton_repo.streaming_options import StreamingOptions

_MODEL_PY = """import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        text = pb_utils.Tensor("TRANSCRIPTS", np.array([{shape}], dtype=np.object_))
        return [pb_utils.InferenceResponse([text]) for _ in requests]
"""


def build_echo_repository(to: Path, spec: ModelSpec, streaming: StreamingOptions | None = None) -> None:
    """Write the echo model with the configuration that the model of `spec` would have, under the same name; with
    `streaming` for streams."""
    config = (
        streaming_config(streaming or StreamingOptions())
        if spec.streaming
        else offline_config(OfflineOptions(), max_utterance_sec=MAX_AUDIO_SEC)
    )
    config.ClearField("model_warmup")
    version = to / config.name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
    (version / "model.py").write_text(_MODEL_PY.format(shape='b"echo"' if spec.streaming else '[b"echo"]'))
