"""OpenVINO's runners against ONNX Runtime's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.arrays import Floats
from moulin.audio.fbank import PADDING_VALUE, Fbank, FbankOptions, pad_features
from moulin.bundle.load import load_bundle
from moulin.bundle.precision import Precision
from moulin.demo.files import DEMO_STREAMING_MODEL, demo_speech
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.openvino import parity
from moulin.engine.openvino.compiled import CompiledModel, check_openvino
from moulin.engine.openvino.rewritten import rewritten_for_openvino
from moulin.engine.openvino.runner import OpenVinoRunner
from moulin.engine.openvino.stream_runner import OpenVinoStreamRunner
from moulin.errors import EngineError, OptionsError
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.engines import RUNTIMES
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.onnx_rewrites.dequantised import dequantise
from moulin.processor import this_processor
from tests.bundles import BUNDLES, OFFLINE, STREAMING
from tests.engine.blank_bias import OFFLINE as OFFLINE_CTC
from tests.engine.blank_bias import STREAMING as STREAMING_CTC
from tests.engine.blank_bias import raised_export

pytestmark = pytest.mark.needs("openvino")
ENGINES: tuple[Engine, ...] = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def speech() -> list[Floats]:
    return demo_speech()[:3]


@pytest.mark.parametrize("name", OFFLINE)
def test_recordings(name: str, speech: list[Floats]) -> None:
    """Each alone, in lengths with every remainder by 8, and in a batch; padded as OpenVINO's runner pads."""
    spec = load_bundle(BUNDLES / name)
    fbank = Fbank(FbankOptions(num_mel_bins=spec.feature_dim))
    features = [fbank(waveform)[:400] for waveform in speech]
    runner, plain = OpenVinoRunner(spec, precision="fp32", threads=1), OnnxRuntimeRunner(spec, threads=1, rewrite=False)
    batches = [[features[0][:length]] for length in range(193, 201)]
    for batch in (*batches, [features[0], features[1][:150], features[2][:77]]):
        x, x_lens = pad_features(batch)
        found, found_lens = runner.encoder(x, x_lens)
        padding = ((0, 0), (0, -x.shape[1] % 64), (0, 0))
        wanted, lens = plain.encoder(np.pad(x, padding, constant_values=PADDING_VALUE), x_lens)
        np.testing.assert_array_equal(found_lens, lens)
        for row, length in enumerate(lens):
            np.testing.assert_allclose(found[row, :length], wanted[row, :length], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", STREAMING)
def test_streams(name: str, speech: list[Floats]) -> None:
    spec = load_bundle(BUNDLES / name)
    assert spec.streaming is not None
    whole = Fbank(FbankOptions(num_mel_bins=spec.feature_dim))(np.concatenate(speech))
    runner = OpenVinoStreamRunner(spec, precision="fp32", threads=1, capacity=4)
    plain = OnnxRuntimeStreamRunner(spec, threads=1, capacity=4, rewrite=False)
    for step, slots in enumerate(([0], [1, 0], [2, 0, 1], [1], [0, 2])):
        first = [(step + 7 * slot) * spec.streaming.chunk_frames for slot in slots]
        x = np.stack([whole[start : start + spec.streaming.window_frames] for start in first])
        found, wanted = (one.encoder(x, np.array(slots)) for one in (runner, plain))
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.needs("torch")
def test_both_heads_of_one_encoder(speech: list[Floats], tmp_path: Path) -> None:
    """The frames with the channel of blank, and the CTC head's log-probabilities, of recordings and streams."""
    features = Fbank()(speech[0])[:192]
    x, x_lens = pad_features([features])
    live = [features[None, start : start + 45] for start in (0, 32)]
    for head in (None, "ctc"):
        offline = raised_export(OFFLINE_CTC, 0.0, tmp_path / f"offline-{head}")
        choice = EngineChoice(head="ctc" if head else None, threads=1)
        opened = [open_recognizer(offline, replace(choice, kind=kind)) for kind in ENGINES]
        found, wanted = (one.pipeline.runner.encoder(x, x_lens)[0] for one in opened)  # type: ignore[attr-defined]
        assert found.shape[2] == (47 if head else opened[0].spec.joiner_dim + 1)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
        streaming = raised_export(STREAMING_CTC, 0.0, tmp_path / f"live-{head}")
        streams = [open_stream_recognizer(streaming, replace(choice, kind=kind), max_streams=1) for kind in ENGINES]
        for window in live:
            found, wanted = (
                one.stepper.runner.encoder(window, np.array([0]))  # type: ignore[attr-defined]
                for one in streams
            )
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_texts_are_the_same(speech: list[Floats]) -> None:
    def texts(engine: EngineChoice) -> list[str]:
        recognizer = open_stream_recognizer(DEMO_STREAMING_MODEL, engine)
        found = []
        for waveform in speech:
            stream = recognizer.open()
            recognizer.accept(stream, waveform)
            recognizer.finish(stream)
            while recognizer.is_ready(stream):
                recognizer.step([stream])
            found.append(recognizer.text(stream))
            recognizer.close(stream)
        return found

    assert texts(EngineChoice("openvino", threads=1)) == texts(EngineChoice("onnxruntime", threads=1))


def test_another_result_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that is off, as a mistake of OpenVINO's would be."""
    spec = load_bundle(BUNDLES / "conformer-offline")

    def one_weight_off(content: bytes, file: Path, **settings: object) -> CompiledModel:
        model = onnx.load_from_string(content)
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0] += 0.5
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return CompiledModel(model.SerializeToString(), file, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("moulin.engine.openvino.encoder.CompiledModel", one_weight_off)
    with pytest.raises(EngineError, match=r"on OpenVINO in fp32 differs from ONNX Runtime by .* on speech"):
        OpenVinoRunner(spec, precision="fp32", threads=1)
    assert set(parity.TOLERANCES) == set(parity.STREAM_TOLERANCES) == set(RUNTIMES["openvino"].precisions)


def test_devices_and_precisions_that_it_has_not() -> None:
    with pytest.raises(OptionsError, match="openvino runs on CPUs, not on cuda"):
        check_openvino("cuda")
    if not this_processor().multiplies_bf16:
        for precision in ("bf16", "int8"):
            with pytest.raises(EngineError, match="Expected a processor with AVX-512 BF16"):
                OpenVinoRunner(load_bundle(BUNDLES / "conformer-offline"), precision=precision, threads=1)


@pytest.mark.skipif(not this_processor().multiplies_bf16, reason="needs a processor with products in bfloat16")
def test_bf16(speech: list[Floats]) -> None:
    """Within its bounds of fp32, and not fp32; streams too, whose states differ by more than the frames."""
    features = Fbank()(speech[0])[:192]
    x, x_lens = pad_features([features])
    runners = [OpenVinoRunner(load_bundle(BUNDLES / "zipformer2-offline"), precision=p, threads=1) for p in PRECISIONS]
    exact, brain = (runner.encoder(x, x_lens)[0] for runner in runners)
    assert 1e-4 < np.abs(brain - exact).max() / np.abs(exact).max() < parity.TOLERANCES["bf16"]
    spec = load_bundle(DEMO_STREAMING_MODEL)
    assert spec.streaming is not None
    window = features[None, : spec.streaming.window_frames]
    live = [OpenVinoStreamRunner(spec, precision=p, threads=1, capacity=1) for p in PRECISIONS]
    exact, brain = (runner.encoder(window, np.array([0])) for runner in live)
    assert 1e-4 < np.abs(brain - exact).max() / np.abs(exact).max() < parity.TOLERANCES["bf16"]


@pytest.mark.skipif(not this_processor().multiplies_bf16, reason="needs a processor with products in bfloat16")
def test_int8(speech: list[Floats]) -> None:
    """The file's weights: nearer to the file without rounded activations than ONNX Runtime is, which rounds them."""
    spec = load_bundle(BUNDLES / "zipformer2-offline", precision="int8")
    x, x_lens = pad_features([Fbank(FbankOptions(num_mel_bins=spec.feature_dim))(speech[0])[:192]])
    found, lens = OpenVinoRunner(spec, precision="int8", threads=1).encoder(x, x_lens)
    rounded, rounded_lens = OnnxRuntimeRunner(spec, threads=1, rewrite=False).encoder(x, x_lens)
    model = onnx.load(spec.encoder.file)
    assert dequantise(model) > 0
    (exact,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
        [spec.encoder.outputs[0].name], {"x": x, "x_lens": x_lens}
    )
    np.testing.assert_array_equal(lens, rounded_lens)
    assert np.abs(found - rounded).max() < parity.TOLERANCES["int8"] * np.abs(rounded).max()
    assert np.abs(found - exact).mean() < np.abs(rounded - exact).mean()


def test_a_graph_that_is_quantised_in_another_way(tmp_path: Path) -> None:
    """OpenVINO would end the process on some."""
    spec = load_bundle(BUNDLES / "zipformer2-offline", precision="int8")
    model = onnx.load(spec.encoder.file)
    product = next(node for node in model.graph.node if node.op_type == "MatMulInteger")
    model.graph.output.append(onnx.helper.make_tensor_value_info(product.output[0], onnx.TensorProto.INT32, None))
    onnx.save(model, tmp_path / "encoder.onnx")
    with pytest.raises(EngineError, match="holds DynamicQuantizeLinear, MatMulInteger in a form that moulin does not"):
        rewritten_for_openvino(replace(spec.encoder, file=tmp_path / "encoder.onnx"))


PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
