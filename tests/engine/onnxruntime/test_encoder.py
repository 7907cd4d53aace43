"""The offline encoder is the graph, whatever is around an utterance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from moulin.arrays import Floats
from moulin.audio.fbank import PADDING_VALUE, Fbank, pad_features
from moulin.bundle.spec import MIN_FRAMES
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner


def direct(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("beyond", [0.0, PADDING_VALUE, 5.0])
def test_what_is_far_beyond_an_utterance_does_not_matter(
    offline_runner: OnnxRuntimeRunner, features: list[Floats], beyond: float
) -> None:
    """x_lens is honoured, whatever the rest of x holds."""
    x, x_lens = pad_features(features)
    x = np.pad(x, ((0, 0), (0, 50), (0, 0)), constant_values=PADDING_VALUE)
    wanted, wanted_lens = offline_runner.encoder(x, x_lens)
    for row, length in zip(x, x_lens, strict=True):
        row[length + 32 :] = beyond
    got, got_lens = offline_runner.encoder(x, x_lens)
    np.testing.assert_array_equal(got_lens, wanted_lens)
    for row, length in enumerate(wanted_lens):
        np.testing.assert_allclose(got[row, :length], wanted[row, :length], atol=2e-2, rtol=0)


@pytest.fixture(scope="module")
def features(clips: list[Floats], noises: list[Floats]) -> list[Floats]:
    fbank = Fbank()
    return [fbank(waveform) for waveform in (clips[0][:40_000], *noises, clips[1][:9_000])]


@pytest.mark.parametrize("alone", [False, True])
def test_encoder_is_the_graph(offline_runner: OnnxRuntimeRunner, features: list[Floats], alone: bool) -> None:
    x, x_lens = pad_features(features)
    encoder_out, lens = offline_runner.encoder(x, x_lens, alone=alone)
    wanted, wanted_lens = direct(offline_runner.spec.encoder.file).run(None, {"x": x, "x_lens": x_lens})
    np.testing.assert_allclose(encoder_out, wanted, atol=1e-4)
    np.testing.assert_array_equal(lens, wanted_lens)
    assert [encoder_out.dtype.name, lens.dtype.name] == ["float32", "int64"]


def test_padding_does_not_reach_an_utterance(offline_runner: OnnxRuntimeRunner, features: list[Floats]) -> None:
    """Each utterance alone, and in a batch where it is padded to the longest and beyond.

    Lengths are multiples of 4. With others the first convolutions, which know no lengths, see what follows an
    utterance: zeros where it is the longest, else padding. That is how Icefall's encoders are, and changes their
    last one or two frames (in a Conformer, by attention, all frames a little).
    """
    features = [utterance[: len(utterance) // 4 * 4] for utterance in features]
    x, x_lens = pad_features(features)
    x = np.pad(x, ((0, 0), (0, 50), (0, 0)), constant_values=PADDING_VALUE)
    encoder_out, lens = offline_runner.encoder(x, x_lens)
    for row, utterance in enumerate(features):
        alone, alone_lens = offline_runner.encoder(utterance[None], np.array([len(utterance)]))
        assert lens[row] == alone_lens[0] == alone.shape[1]
        np.testing.assert_allclose(encoder_out[row, : lens[row]], alone[0], atol=2e-2, rtol=0)


def test_the_shortest_input_gives_a_frame(offline_runner: OnnxRuntimeRunner) -> None:
    encoder_out, lens = offline_runner.encoder(np.zeros((1, MIN_FRAMES, 80), np.float32), np.array([MIN_FRAMES]))
    assert encoder_out.shape == (1, 1, 56)
    assert lens.tolist() == [1]
