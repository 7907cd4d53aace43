from __future__ import annotations

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank, pad_features
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.onnxruntime.checked_rewrite import open_checked
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.session import new_session
from moulin.errors import OptionsError
from tests.bundles import BUNDLES, OFFLINE

SHORTEST = 121
"""Frames that the causal digits-en runs with."""


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


def test_int8_frames_are_an_utterances_own(clips: list[Floats]) -> None:
    """To the last bit, whatever else is in the call, and by however many threads."""
    spec = load_bundle(DEMO_MODEL)
    assert spec.precision == "int8"
    features = [Fbank()(clip[:length]) for clip, length in zip(clips, (20_000, 50_000, 33_333, 8_000), strict=False)]
    frames, lens = BatchedEncoder(OnnxRuntimeRunner(spec, threads=2), channels=spec.joiner_dim)(features)
    _, content = open_checked(spec.encoder, "cpu", 1, feature_dim=80, precision="int8")
    assert content is not None
    for threads in (1, 2, 3):
        session = new_session(spec.encoder.file, "cpu", threads, content, precision="int8")
        for row, utterance in enumerate(features):
            x, _ = pad_features([utterance], SHORTEST)
            (alone, _) = session.run(None, {"x": x, "x_lens": np.array([len(utterance)])})
            np.testing.assert_array_equal(frames[row, : lens[row]], alone[0, : lens[row]])


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("threads", [0, -1])
def test_threads(threads: int) -> None:
    with pytest.raises(OptionsError, match=f"Expected at least 1 thread, got {threads}"):
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), threads=threads)
