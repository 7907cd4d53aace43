"""The GPU engine with the weights of ONNX files against ONNX Runtime on the files themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moulin.arrays import Floats, Ints
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.bundle.precision import Precision
from moulin.bundle.spec import OnnxModelSpec
from moulin.bundle.transducer import load_transducer, transducer_of
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.engine.gpu.pipeline import GpuEnginePipeline
from moulin.engine.gpu.stepper import GpuStepper
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.recognizer import Recognizer
from moulin.engine.torch.runner import TorchRunner
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.export.to_onnx import export_onnx
from moulin.gpu.open_encoder import gpu_encoder
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES, MORE_OFFLINE, OFFLINE

CHECKPOINT = Path(__file__).parents[1] / "data" / "digits-en"

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: PyTorch sees none")


def files(bundle: str) -> OnnxModelSpec:
    """The encoder file is named: a checkpoint is beside it."""
    (encoder,) = (file for file in (BUNDLES / bundle).glob("encoder*.onnx") if "int8" not in file.name)
    return replace(load_bundle(encoder), run_in="fp32")


@pytest.fixture(scope="module")
def clip() -> Floats:
    return read_audio(demo_clips()[0].audio)[:9_600]


class GpuEncoderRunner(TorchRunner):
    """PyTorch's runner with the encoder of the GPU engine, which Triton's interpreter runs where there is no GPU. The
    engine's searches are those of streams; its pipeline for utterances needs a GPU."""

    def __init__(self, spec: OnnxModelSpec, device: torch.device) -> None:
        transducer = transducer_of(spec)
        super().__init__(spec, transducer, threads=1)
        self._on_gpu = gpu_encoder(transducer, device=device, dtype=torch.float32, max_frames=400)
        self._to = device

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:  # noqa: ARG002
        counts = self._on_gpu.counts(x_lens.astype(np.int32))
        frames = self._on_gpu(torch.from_numpy(x).to(self._to), torch.from_numpy(counts).to(self._to))
        return frames.float().cpu().numpy(), counts[-1].astype(np.int64)


@pytest.mark.parametrize("bundle", [*OFFLINE, *MORE_OFFLINE])
def test_utterances_have_the_tokens_that_onnx_runtime_finds(bundle: str, device: torch.device, clip: Floats) -> None:
    spec = files(bundle)
    with open_recognizer(spec.file) as plain:
        wanted = plain.transcribe([clip])
    with Recognizer(spec, HostPipeline(spec, GpuEncoderRunner(spec, device))) as ours:
        heard = ours.transcribe([clip])
    assert heard[0].text == wanted[0].text != ""


def word_errors(heard: list[str]) -> int:
    counts = (
        count_word_errors(clip.text, text, normalize=digits_spelled_alike)
        for clip, text in zip(demo_clips(), heard, strict=True)
    )
    return sum(counts, WordErrors()).errors


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp32 files of digits-en, by our own export: the demo model has an encoder in int8 alone."""
    folder = tmp_path_factory.mktemp("digits-en")
    export_onnx(load_transducer([CHECKPOINT / "model.safetensors"]), folder, "exported")
    (folder / "tokens.txt").write_bytes((CHECKPOINT / "tokens.txt").read_bytes())
    return folder


@on_gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_recordings_have_the_words_that_the_checkpoint_gives(exported: Path, precision: Precision) -> None:
    clips = [read_audio(clip.audio) for clip in demo_clips()]
    texts = []
    for model in (exported, CHECKPOINT):
        with open_recognizer(model, EngineChoice(device="cuda", precision=precision)) as recognizer:
            assert isinstance(recognizer.pipeline, GpuEnginePipeline)
            texts.append([transcript.text for transcript in recognizer.transcribe(clips)])
    assert texts[0] == texts[1]


@on_gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_int8_files_make_as_many_errors_as_on_the_cpu(precision: Precision) -> None:
    """9 in 140 words (MODEL_CARD.md); of a word in doubt either may be heard."""
    clips = [read_audio(clip.audio) for clip in demo_clips()]
    with open_recognizer(DEMO_MODEL, EngineChoice(device="cuda", precision=precision)) as recognizer:
        assert isinstance(recognizer.pipeline, GpuEnginePipeline)
        heard = [transcript.text for transcript in recognizer.transcribe(clips)]
    assert word_errors(heard) <= 10


@on_gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_streams_make_as_many_errors_as_on_the_cpu(precision: Precision) -> None:
    """18 in 140 words (MODEL_CARD.md)."""
    texts = []
    engine = EngineChoice(device="cuda", precision=precision)
    with open_stream_recognizer(DEMO_STREAMING_MODEL, engine, max_streams=14) as live:
        assert isinstance(live.stepper, GpuStepper)
        for clip in demo_clips():
            stream = live.open()
            live.accept(stream, read_audio(clip.audio))
            live.finish(stream)
            live.advance(stream)
            texts.append(live.text(stream))
            live.close(stream)
    assert word_errors(texts) <= 19
