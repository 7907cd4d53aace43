"""The decoder and joiner are the graphs."""

from __future__ import annotations

import numpy as np
import onnxruntime

from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner


def test_decoder_and_joiner_are_the_graphs(offline_runner: OnnxRuntimeRunner) -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([[[-1, 0], [0, 0], [0, 5]], rng.integers(0, 37, (4, 2))]).astype(np.int64)
    decoder_out = offline_runner.decoder(y)
    decoder, joiner = (
        onnxruntime.InferenceSession(graph.file, providers=["CPUExecutionProvider"])
        for graph in (offline_runner.spec.decoder, offline_runner.spec.joiner)
    )
    np.testing.assert_allclose(decoder_out, decoder.run(None, {"y": y})[0], atol=1e-6)
    encoder_out = rng.standard_normal(decoder_out.shape).astype(np.float32)
    inputs = {"encoder_out": encoder_out, "decoder_out": decoder_out}
    wanted = joiner.run(None, inputs)[0]
    np.testing.assert_allclose(offline_runner.joiner(encoder_out, decoder_out), wanted, atol=1e-5)
