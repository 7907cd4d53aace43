"""Offline runner on ONNX Runtime."""

from __future__ import annotations

from moulin.bundle.spec import OnnxModelSpec
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction


class OnnxRuntimeRunner(OnnxRuntimeEncoder, OnnxRuntimePrediction):
    """Encoder, decoder and joiner as ONNX Runtime sessions. On a GPU only the encoder runs there."""

    def __init__(
        self,
        spec: OnnxModelSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        rewrite: bool = True,
    ) -> None:
        """The options are those of `OnnxRuntimeEncoder`."""
        OnnxRuntimePrediction.__init__(self, spec)
        OnnxRuntimeEncoder.__init__(
            self,
            spec.encoder,
            feature_dim=spec.feature_dim,
            precision=spec.precision,
            device=device,
            threads=threads,
            workers=workers,
            rewrite=rewrite,
            ctc_output=spec.ctc_output,
        )
