from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.arrays import Floats
from moulin.audio.fbank import PADDING_VALUE, Fbank, pad_features
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import MIN_FRAMES
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.errors import EngineError, OptionsError
from tests.bundles import BUNDLES, OFFLINE


def direct(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=OFFLINE)
def runner(request: pytest.FixtureRequest) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(load_bundle(BUNDLES / request.param), threads=2)


@pytest.mark.parametrize("beyond", [0.0, PADDING_VALUE, 5.0])
def test_what_is_far_beyond_an_utterance_does_not_matter(
    runner: OnnxRuntimeRunner, features: list[Floats], beyond: float
) -> None:
    """x_lens is honoured, whatever the rest of x holds."""
    x, x_lens = pad_features(features)
    x = np.pad(x, ((0, 0), (0, 50), (0, 0)), constant_values=PADDING_VALUE)
    wanted, wanted_lens = runner.encoder(x, x_lens)
    for row, length in zip(x, x_lens, strict=True):
        row[length + 32 :] = beyond
    got, got_lens = runner.encoder(x, x_lens)
    np.testing.assert_array_equal(got_lens, wanted_lens)
    for row, length in enumerate(wanted_lens):
        np.testing.assert_allclose(got[row, :length], wanted[row, :length], atol=2e-2, rtol=0)


@pytest.fixture(scope="module")
def features(clips: list[Floats], noises: list[Floats]) -> list[Floats]:
    fbank = Fbank()
    return [fbank(waveform) for waveform in (clips[0][:40_000], *noises, clips[1][:9_000])]


@pytest.mark.parametrize("alone", [False, True])
def test_encoder_is_the_graph(runner: OnnxRuntimeRunner, features: list[Floats], alone: bool) -> None:
    x, x_lens = pad_features(features)
    encoder_out, lens = runner.encoder(x, x_lens, alone=alone)
    wanted, wanted_lens = direct(runner.spec.encoder.file).run(None, {"x": x, "x_lens": x_lens})
    np.testing.assert_allclose(encoder_out, wanted, atol=1e-4)
    np.testing.assert_array_equal(lens, wanted_lens)
    assert [encoder_out.dtype.name, lens.dtype.name] == ["float32", "int64"]


def test_padding_does_not_reach_an_utterance(runner: OnnxRuntimeRunner, features: list[Floats]) -> None:
    """Each utterance alone, and in a batch where it is padded to the longest and beyond.

    Lengths are multiples of 4. With others the first convolutions, which know no lengths, see what follows an
    utterance: zeros where it is the longest, else padding. That is how Icefall's encoders are, and changes their
    last one or two frames (in a Conformer, by attention, all frames a little).
    """
    features = [utterance[: len(utterance) // 4 * 4] for utterance in features]
    x, x_lens = pad_features(features)
    x = np.pad(x, ((0, 0), (0, 50), (0, 0)), constant_values=PADDING_VALUE)
    encoder_out, lens = runner.encoder(x, x_lens)
    for row, utterance in enumerate(features):
        alone, alone_lens = runner.encoder(utterance[None], np.array([len(utterance)]))
        assert lens[row] == alone_lens[0] == alone.shape[1]
        np.testing.assert_allclose(encoder_out[row, : lens[row]], alone[0], atol=2e-2, rtol=0)


def test_the_shortest_input_gives_a_frame(runner: OnnxRuntimeRunner) -> None:
    encoder_out, lens = runner.encoder(np.zeros((1, MIN_FRAMES, 80), np.float32), np.array([MIN_FRAMES]))
    assert encoder_out.shape == (1, 1, 56)
    assert lens.tolist() == [1]


def test_decoder_and_joiner_are_the_graphs(runner: OnnxRuntimeRunner) -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([[[-1, 0], [0, 0], [0, 5]], rng.integers(0, 37, (4, 2))]).astype(np.int64)
    decoder_out = runner.decoder(y)
    np.testing.assert_allclose(decoder_out, direct(runner.spec.decoder.file).run(None, {"y": y})[0], atol=1e-6)
    encoder_out = rng.standard_normal(decoder_out.shape).astype(np.float32)
    inputs = {"encoder_out": encoder_out, "decoder_out": decoder_out}
    wanted = direct(runner.spec.joiner.file).run(None, inputs)[0]
    np.testing.assert_allclose(runner.joiner(encoder_out, decoder_out), wanted, atol=1e-5)


def test_facts(runner: OnnxRuntimeRunner) -> None:
    assert runner.context_size == 2
    assert runner.skipped_ids == (0, 2)
    assert runner.num_workers == 2
    assert not runner.on_cuda


def test_floats_of_the_calling_thread_stay_as_they_are(runner: OnnxRuntimeRunner) -> None:
    """ONNX Runtime can make zeros of denormals, and then does so for whoever opened the first model."""
    runner.decoder(np.zeros((1, 2), np.int64))
    assert np.float32(1e-40) * np.float32(0.5) > 0


def test_int8() -> None:
    exact = OnnxRuntimeRunner(load_bundle(BUNDLES / "zipformer2-offline"), threads=1)
    coarse = OnnxRuntimeRunner(load_bundle(BUNDLES / "zipformer2-offline", precision="int8"), threads=1)
    x = np.random.default_rng(0).standard_normal((1, 200, 80)).astype(np.float32)
    wanted, lens = exact.encoder(x, np.array([200]))
    got, got_lens = coarse.encoder(x, np.array([200]))
    np.testing.assert_array_equal(lens, got_lens)
    assert 0 < np.abs(got - wanted).mean() < 0.2 * np.abs(wanted).mean()


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cuda:-1", "", "cpu:0"])
def test_devices_that_there_are_none_of(device: str) -> None:
    with pytest.raises(OptionsError, match="Expected a device of cpu, cuda or cuda:N, got"):
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), device=device)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads(threads: int) -> None:
    with pytest.raises(OptionsError, match=f"Expected at least 1 thread, got {threads}"):
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), threads=threads)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_its_provider(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Never a silent fall-back to the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="no CUDA provider, only CPUExecutionProvider") as caught:
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), device=device)
    assert ".[engine-gpu]" in str(caught.value.hint)


def shrink_a_weight(model: Any) -> None:
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    weight.dims[0] -= 1


def use_an_unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Teleport"


def drop_a_node(model: Any) -> None:
    del model.graph.node[0]


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("damage", [shrink_a_weight, use_an_unknown_operator, drop_a_node])
def test_a_graph_that_parses_and_does_not_run(tmp_path: Path, role: str, damage: Callable[[Any], None]) -> None:
    folder = Path(shutil.copytree(BUNDLES / "conformer-offline", tmp_path / "model"))
    file = next(folder.glob(f"{role}*.onnx"))
    model = onnx.load(file)
    damage(model)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="ONNX Runtime cannot load") as caught:
        OnnxRuntimeRunner(load_bundle(folder))
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message
