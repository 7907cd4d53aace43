"""The CUDA provider gives what the CPU gives, in process and through Triton."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.client import Client
from moulin.decoding.options import DecodingOptions, Method
from moulin.demo.files import DEMO_MODEL
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.evaluate.manifest import demo_clips
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository
from tests.bundles import BUNDLES, OFFLINE

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def speech() -> Sequence[Floats]:
    return [read_audio(clip.audio) for clip in demo_clips()]


@pytest.mark.parametrize("name", OFFLINE)
def test_encoder_equals_the_cpu(name: str) -> None:
    spec = load_bundle(BUNDLES / name)
    rng = np.random.default_rng(0)
    lens = np.array([400, 123, 9, 77])
    x = rng.normal(-6, 4, (len(lens), lens.max(), spec.feature_dim)).astype(np.float32)
    cpu, cpu_lens = OnnxRuntimeRunner(spec, device="cpu").encoder(x, lens)
    cuda, cuda_lens = OnnxRuntimeRunner(spec, device="cuda:0").encoder(x, lens)
    np.testing.assert_array_equal(cuda_lens, cpu_lens)
    for row, length in enumerate(cpu_lens):
        # TF32 in the matrix products: three digits.
        np.testing.assert_allclose(cuda[row, :length], cpu[row, :length], rtol=0, atol=2e-2)


@pytest.mark.parametrize("method", ["greedy", "modified_beam_search"])
def test_texts_equal_the_cpu(speech: Sequence[Floats], method: Method) -> None:
    options = DecodingOptions(method=method)
    with (
        open_recognizer(DEMO_MODEL, EngineChoice(device="cpu"), options=options) as cpu,
        open_recognizer(DEMO_MODEL, EngineChoice(device="cuda"), options=options) as cuda,
    ):
        assert [t.text for t in cuda.transcribe(speech)] == [t.text for t in cpu.transcribe(speech)]


@pytest.mark.triton
def test_triton_on_the_gpu_gives_the_same_texts(speech: Sequence[Floats], tmp_path: Path) -> None:
    build_offline_repository(
        load_bundle(DEMO_MODEL), tmp_path, OfflineOptions(engine=EngineChoice(device="cuda:0")), link=True
    )
    with TritonServer(tmp_path, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
        server.wait_ready()
        with Client(server.grpc_url) as client, open_recognizer(DEMO_MODEL) as cpu:
            over_triton = client.transcribe_batch(speech)
            assert [t.text for t in over_triton] == [t.text for t in cpu.transcribe(speech)]
