"""Offline runner on OpenVINO."""

from __future__ import annotations

from moulin.bundle.precision import Precision
from moulin.bundle.spec import OnnxModelSpec
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.openvino.encoder import OpenVinoEncoder


class OpenVinoRunner(OpenVinoEncoder, OnnxRuntimePrediction):
    """The encoder on OpenVINO; decoder and joiner, which are small, as ONNX Runtime sessions."""

    def __init__(
        self,
        spec: OnnxModelSpec,
        *,
        precision: Precision,
        threads: int | None = None,
        workers: int | None = None,
    ) -> None:
        """The options are those of `OpenVinoEncoder`."""
        OnnxRuntimePrediction.__init__(self, spec)
        OpenVinoEncoder.__init__(
            self,
            spec.encoder,
            feature_dim=spec.feature_dim,
            precision=precision,
            threads=threads,
            workers=workers,
            max_frames=spec.max_frames,
            ctc_output=spec.ctc_output,
        )
