from __future__ import annotations

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.errors import OptionsError
from tests.bundles import BUNDLES, OFFLINE


def test_facts(offline_runner: OnnxRuntimeRunner) -> None:
    assert offline_runner.context_size == 2
    assert offline_runner.skipped_ids == (0, 2)
    assert offline_runner.num_workers == 2
    assert not offline_runner.on_cuda


def test_int8() -> None:
    exact = OnnxRuntimeRunner(load_bundle(BUNDLES / "zipformer2-offline"), threads=1)
    coarse = OnnxRuntimeRunner(load_bundle(BUNDLES / "zipformer2-offline", precision="int8"), threads=1)
    x = np.random.default_rng(0).standard_normal((1, 200, 80)).astype(np.float32)
    wanted, lens = exact.encoder(x, np.array([200]))
    got, got_lens = coarse.encoder(x, np.array([200]))
    np.testing.assert_array_equal(lens, got_lens)
    assert 0 < np.abs(got - wanted).mean() < 0.2 * np.abs(wanted).mean()


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("threads", [0, -1])
def test_threads(threads: int) -> None:
    with pytest.raises(OptionsError, match=f"Expected at least 1 thread, got {threads}"):
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), threads=threads)
