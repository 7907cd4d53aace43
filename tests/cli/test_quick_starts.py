"""The two quick starts of docs/quick-starts.md, from a hub on this machine, with models of their families.

One is published as ONNX files with a vocabulary of Chinese characters, the other as a checkpoint; both lie as Icefall
leaves them, the model in `exp` and the vocabulary in `data`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from moulin.audio.decode import read_audio
from moulin.client import Client
from moulin.evaluate.manifest import demo_clips
from moulin.models.open_recognizer import open_recognizer
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from tests.bundles import BUNDLES
from tests.fetch.site import Site, publish, running
from tests.tensorrt_stand_in import install
from tests.triton_repo.shim_args import shim_args

from .command import MOULIN, Serving, moulin, moulin_here

WENETSPEECH = "pkufool/icefall-asr-zipformer-wenetspeech-20230615"
LIBRISPEECH = "csukuangfj/icefall-asr-librispeech-pruned-transducer-stateless3-2022-05-13"
CHECKPOINT = "exp/pretrained-iter-1224000-avg-14.pt"
QUICK_STARTS = (f"hf://{WENETSPEECH}", f"hf://{LIBRISPEECH}/{CHECKPOINT}")
CHARACTERS = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种"


def _chinese(tokens: str) -> str:
    """The same ids for characters."""
    lines = [line.split() for line in tokens.splitlines()]
    return "".join(f"{symbol if int(at) < 3 else CHARACTERS[int(at)]} {at}\n" for symbol, at in lines)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    zipformer, conformer = BUNDLES / "zipformer2-offline", BUNDLES / "conformer-offline"
    with running(Site()) as serving:
        tokens = _chinese((zipformer / "tokens.txt").read_text())
        files = {"data/lang_char/tokens.txt": tokens.encode(), "README.md": b"", "exp/cpu_jit.pt": b"not for us"}
        for file in zipformer.glob("*.onnx"):
            files["exp/" + file.name.replace("epoch-1-avg-1", "epoch-12-avg-4")] = file.read_bytes()
        publish(serving, files, WENETSPEECH)
        checkpoint = (conformer / "epoch-1.pt").read_bytes()
        vocabulary = (conformer / "tokens.txt").read_bytes()
        others = {"exp/pretrained-epoch-30-avg-10.pt": b"another", "data/lang_bpe_500/tokens.txt": vocabulary}
        publish(serving, {CHECKPOINT: checkpoint, **others}, LIBRISPEECH)
        yield serving


@pytest.fixture
def start(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Serving]]:
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    started: list[Serving] = []

    def run(*arguments: str) -> Serving:
        free = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--no-gateway")
        started.append(Serving.start([MOULIN, "serve", *arguments, *free], tmp_path / str(len(started))))
        return started[-1]

    yield run
    for serving in started:
        serving.kill()


def _is_chinese(text: str) -> bool:
    """Characters without spaces between them."""
    return bool(text) and set(text) <= set(CHARACTERS)


@pytest.mark.triton
@pytest.mark.parametrize("model", QUICK_STARTS, ids=["wenetspeech", "librispeech"])
def test_from_the_hub_to_a_service_on_triton(model: str, start: Callable[..., Serving]) -> None:
    serving = start(model, "--engine", "onnxruntime")
    serving.wait_ready()
    waveform = read_audio(demo_clips()[0].audio)
    with Client(serving.grpc_url) as client:
        text = client.transcribe(waveform).text
    (folder,) = {file.parent for file in serving.cache.rglob("encoder-*.onnx")}
    with open_recognizer(folder) as recognizer:
        assert recognizer.transcribe([waveform])[0].text == text
    if "wenetspeech" in model:
        assert _is_chinese(text)
    else:
        assert "Writing ONNX files of " in serving.err
        assert re.fullmatch("[a-z ]+", text)


@pytest.mark.parametrize("model", QUICK_STARTS, ids=["wenetspeech", "librispeech"])
def test_from_the_hub_to_a_repository_with_an_engine(
    model: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `moulin serve --engine tensorrt` does, up to TensorRT: there is a stand-in for it."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", site.url)
    template = site.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    tensorrt = install(monkeypatch, tmp_path / "cache")
    arguments = ["--engine", "tensorrt", "--max-audio-sec", 12, "--max-batch", 4]
    done = moulin_here("repo", "build", model, "--to", tmp_path / "repository", *arguments).expect(0)
    assert "It differs from ONNX Runtime by " in done.err
    folder = tmp_path / "repository" / "transducer"
    parameters = ShimParameters.read(shim_args(folder), OfflineOptions)
    waveform = read_audio(demo_clips()[0].audio)
    with open_recognizer(parameters.encoder, parameters.engine) as recognizer:
        text = recognizer.transcribe([waveform, np.zeros(8000, np.float32)])[0].text
    assert _is_chinese(text) if "wenetspeech" in model else re.fullmatch("[a-z ]+", text)
    assert tensorrt.builds == 1


def test_without_tensorrt_nothing_is_fetched(site: Site, tmp_path: Path) -> None:
    before = len(site.requests)
    environ = {**os.environ, "HF_ENDPOINT": site.url, "XDG_CACHE_HOME": str(tmp_path)}
    done = moulin("serve", QUICK_STARTS[0], "--engine", "tensorrt", environ=environ).expect(1)
    assert re.match(r"moulin: (The engine tensorrt needs TensorRT's|.*GPU)", done.err)  # with TensorRT-RTX: no GPU
    assert len(site.requests) == before
