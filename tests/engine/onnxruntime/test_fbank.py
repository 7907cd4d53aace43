from __future__ import annotations

import numpy as np
import pytest

from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank

OPTIONS = FbankOptions()


@pytest.mark.parametrize("count", [1, 2, 45, 700])
def test_equals_numpy(count: int) -> None:
    frames = 0.1 * np.random.default_rng(count).standard_normal((count, 400), dtype=np.float32)
    fbank = BatchedFbank(OPTIONS)
    features = OnnxRuntimeFbank(fbank, "cpu")(frames)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, fbank(frames), atol=2e-4, rtol=0)


def test_a_frame_alone_gives_what_it_gives_in_a_batch() -> None:
    frames = 0.1 * np.random.default_rng(0).standard_normal((64, 400), dtype=np.float32)
    fbank = OnnxRuntimeFbank(BatchedFbank(OPTIONS), "cpu")
    alone = np.concatenate([fbank(frame[None]) for frame in frames])
    np.testing.assert_allclose(alone, fbank(frames), atol=2e-4, rtol=0)
