"""Which ONNX files our GPU engine runs without being told, and what is said where it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from moulin.bundle.spec import OnnxModelSpec
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.errors import BundleError, EngineError
from moulin.models import files_on_gpu
from moulin.models import load_for_engine as loading
from moulin.models.engine_choice import EngineChoice
from moulin.models.files_on_gpu import why_not_its_network
from moulin.models.host_search import needs_host_search
from moulin.models.load_for_engine import load_for_engine
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES, OFFLINE, STREAMING
from tests.conftest import Recording

pytestmark = pytest.mark.needs("torch")


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    loading._warn.cache_clear()


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_on_gpu, "check_gpu_engine", lambda _device: None)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A published model: no checkpoint is beside its files, in fp32 and int8."""
    for file in (BUNDLES / "zipformer2-offline").iterdir():
        if file.suffix in (".onnx", ".txt"):
            shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("choice", "kind", "precision"),
    [
        (EngineChoice(device="cuda"), "torch", "fp16"),
        (EngineChoice(device="cuda", precision="bf16"), "torch", "bf16"),
        (EngineChoice(device="cuda", precision="fp16"), "torch", "fp16"),
        (EngineChoice(device="cuda", precision="int8"), "onnxruntime", "int8"),
        (EngineChoice(device="cuda", precision="fp32"), "onnxruntime", "fp32"),
        (EngineChoice("onnxruntime", "cuda"), "onnxruntime", "fp32"),
        (EngineChoice("torch", "cuda", precision="fp32"), "torch", "fp32"),
        (EngineChoice("torch"), "torch", "fp32"),
        (EngineChoice(), "onnxruntime", "fp32"),
    ],
)
def test_the_engine_of_published_files(
    choice: EngineChoice, kind: str, precision: str, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, settled = load_for_engine(files, choice, None)
    assert (settled.kind, settled.precision, spec.precision) == (kind, precision, precision)
    assert isinstance(spec, OnnxModelSpec)
    assert spec.run_in == (precision if kind == "torch" else None)
    assert (spec.max_frames is None) == (kind == "torch")  # positions are computed, not taken from a table
    assert not caplog.messages


@pytest.mark.usefixtures("a_gpu")
def test_int8_files_alone_are_dequantised(files: Path) -> None:
    for file in files.glob("*.onnx"):
        if "int8" not in file.name:
            file.unlink()
    spec, settled = load_for_engine(files, EngineChoice(device="cuda"), None)
    assert (settled.kind, spec.precision) == ("torch", "fp16")


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("bundle", [*STREAMING, "conformer-streaming-right2"])
def test_streams_of_all_families(bundle: str, caplog: pytest.LogCaptureFixture) -> None:
    (encoder,) = (BUNDLES / bundle).glob("encoder*.onnx")
    spec, settled = load_for_engine(encoder, EngineChoice(device="cuda"), "streaming")
    assert (settled.kind, spec.precision) == ("torch", "fp16")
    assert not caplog.messages


@pytest.mark.usefixtures("a_gpu")
def test_a_graph_with_something_unknown_runs_on_onnx_runtime(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = files / "encoder-epoch-1-avg-1.onnx"
    model = onnx.load(encoder)
    (node,) = (node for node in model.graph.node if node.name == "/encoder_embed/out_norm/ReduceMean")
    node.op_type = "ReduceMax"
    onnx.save(model, encoder)
    spec, settled = load_for_engine(files, EngineChoice(device="cuda"), None)
    assert (settled.kind, spec.precision) == ("onnxruntime", "fp32")
    (said,) = caplog.messages
    assert "runs on ONNX Runtime, not on our GPU engine: Expected" in said
    assert "'encoder_embed.out_norm.bias' as the only norm fed by '/encoder_embed/out/MatMul'" in said


@pytest.mark.usefixtures("a_gpu")
def test_a_decoder_of_another_form_too(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    decoder = files / "decoder-epoch-1-avg-1.onnx"
    model = onnx.load(decoder)
    (node,) = (node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Identity"
    onnx.save(model, decoder)
    _, settled = load_for_engine(files, EngineChoice(device="cuda"), None)
    assert settled.kind == "onnxruntime"
    assert caplog.messages[0].endswith("to have a ReLU in the decoder True, got False")


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (DecodingOptions(blank_skip=0.95), None),
        (DecodingOptions("fast_beam_search"), "it knows no fast_beam_search"),
        (DecodingOptions(hotwords=(Hotword("a"),), nbest=3, lm_scale=0.3), None),
        (DecodingOptions(), None),
        (None, None),
    ],
)
def test_what_it_does_not_do_runs_on_onnx_runtime(
    options: DecodingOptions | None, reason: str | None, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host_search = needs_host_search(options)
    _, settled = load_for_engine(files, EngineChoice(device="cuda"), None, host_search=host_search)
    assert settled.kind == ("onnxruntime" if reason else "torch")
    said = [message.rpartition(": ")[2] for message in caplog.messages]
    assert said == ([reason] if reason else [])


def test_without_a_gpu_the_reason_is_said(
    files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(device: str) -> None:
        raise EngineError(f"Expected a GPU {device}, PyTorch finds 0 GPUs")

    monkeypatch.setattr(files_on_gpu, "check_gpu_engine", missing)
    _, settled = load_for_engine(files, EngineChoice(device="cuda"), None)
    assert settled.kind == "onnxruntime"
    load_for_engine(files, EngineChoice(device="cuda"), None)
    (said,) = caplog.messages
    assert said.endswith("not on our GPU engine: Expected a GPU cuda, PyTorch finds 0 GPUs")
    with pytest.raises(BundleError, match="has no bf16 encoder, only fp32") as refused:
        load_for_engine(files, EngineChoice(device="cuda", precision="bf16"), None)
    assert refused.value.hint is not None
    assert "our GPU engine would run it in any, but: Expected a GPU cuda" in refused.value.hint


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("bundle", "sizes"),
    [
        ("zipformer2-streaming", "16 frames with a left context of 64"),
        ("zipformer-streaming", "32 feature frames with a left context of 64"),
    ],
)
def test_chunks_that_the_kernels_do_not_take(
    bundle: str, sizes: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(f"moulin.gpu.stream_{bundle.partition('-')[0]}.MAX_BLOCK", 64)
    (encoder,) = (BUNDLES / bundle).glob("encoder*.onnx")
    _, settled = load_for_engine(encoder, EngineChoice(device="cuda"), "streaming")
    assert settled.kind == "onnxruntime"
    assert f"takes no chunk of {sizes}" in caplog.messages[0]


@pytest.mark.parametrize("bundle", OFFLINE)
def test_recordings_by_the_modules_of_pytorch(bundle: str, recordings: list[Recording]) -> None:
    (encoder,) = (file for file in (BUNDLES / bundle).glob("encoder*.onnx") if "int8" not in file.name)
    texts = []
    for engine in ("torch", "onnxruntime"):
        with open_recognizer(encoder, EngineChoice(engine)) as recognizer:
            texts.append(recognizer.transcribe([recordings[0].waveform[:32_000]])[0].text)
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize("bundle", STREAMING)
def test_streams_by_the_modules_of_pytorch(bundle: str, recordings: list[Recording]) -> None:
    (encoder,) = (BUNDLES / bundle).glob("encoder*.onnx")
    texts = []
    for engine in ("torch", "onnxruntime"):
        with open_stream_recognizer(encoder, EngineChoice(engine), max_streams=1) as live:
            stream = live.open()
            live.accept(stream, recordings[0].waveform[:32_000])
            live.finish(stream)
            live.advance(stream)
            texts.append(live.text(stream))
    assert texts[0] == texts[1] != ""


def test_the_reason_for_inspect(files: Path) -> None:
    spec, _ = load_for_engine(files, EngineChoice(), None)
    assert isinstance(spec, OnnxModelSpec)
    assert why_not_its_network(spec) is None
