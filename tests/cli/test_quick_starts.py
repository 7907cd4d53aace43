"""Every command of docs/quick-starts.md, from a hub on this machine, with models of the same recipes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.client import Client
from moulin.encoders.recipe import Recipe
from moulin.evaluate.manifest import demo_clips
from moulin.launch.tensorrt_libraries import TENSORRT_RTX
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.tensorrt_engine import ready_plan
from moulin.tensorrt_engine.builders import library_version
from moulin.tensorrt_engine.plan_file import Machine, built_for
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from tests.bundles import BUNDLES
from tests.fetch.site import Site, publish, running
from tests.tensorrt_stand_in import install
from tests.triton_repo.shim_args import shim_args

from .command import MOULIN, Serving, moulin, moulin_here
from .published_recipes import CHARACTERS, OTHER, PUBLISHED, WENETSPEECH

PAGE = Path(__file__).parents[2] / "docs" / "quick-starts.md"
COMMANDS = re.findall(r"^\$ moulin (.*hf://.*)$", PAGE.read_text(), re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A command's words behind `moulin`; the bundle that stands for its model, whose export by Icefall has the same
    chunk where `judged`; what the log says."""

    words: tuple[str, ...]
    bundle: str
    judged: bool = True
    said: str = ""

    @property
    def model(self) -> str:
        return self.words[1] if self.words[0] == "serve" else self.words[2]

    @property
    def streaming(self) -> bool:
        return "--streaming" in self.words

    def on_a_cpu(self) -> list[str]:
        """The words for ONNX Runtime in fp32 without a GPU."""
        text = shlex.join(self.words)
        for flag in (" --device cuda", " --precision fp16"):
            text = text.replace(flag, "")
        return shlex.split(text.replace("--engine tensorrt", "--engine onnxruntime"))


_BUNDLES = (
    ("conformer-offline", True, "Writing ONNX files of "),
    ("conformer-offline", True, "Writing ONNX files of "),
    ("conformer-streaming", False, "Writing ONNX files of "),
    ("zipformer-offline", True, "Writing ONNX files of "),
    ("zipformer-streaming", True, "Writing ONNX files of "),
    ("conformer-streaming-right2", False, "Writing ONNX files of "),
    ("zipformer2-offline", True, "was exported for 40 s at once; writing it for any length"),
    ("zipformer2-offline", True, ""),
)
ROWS = [Row(tuple(shlex.split(command)), *row) for command, row in zip(COMMANDS, _BUNDLES, strict=True)]
SERVED = [row for row in ROWS if row.words[0] == "serve"]
WITH_TENSORRT = [row for row in SERVED if "tensorrt" in row.words]
NAMES = ["stateless3", "stateless3-trt", "stateless3-streaming", "stateless7", "stateless7-streaming", "stateless5", "wenetspeech"]  # fmt: skip  # noqa: E501


def test_there_are_eight_scripts() -> None:
    scripts = re.findall(r"^`(build_[a-z0-9_]+\.sh)", PAGE.read_text(), re.MULTILINE)
    assert len(set(scripts)) == len(ROWS) == 8
    assert {row.model.removeprefix("hf://").split("/exp")[0] for row in ROWS} == PUBLISHED.keys()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running(Site()) as serving:
        for repository, files in PUBLISHED.items():
            publish(serving, {**OTHER, **files()}, repository)
        yield serving


@pytest.fixture
def start(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Serving]]:
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    started: list[Serving] = []

    def run(*arguments: str) -> Serving:
        free = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--no-gateway")
        started.append(Serving.start([MOULIN, *arguments, *free], tmp_path / str(len(started))))
        return started[-1]

    yield run
    for serving in started:
        serving.kill()


@pytest.fixture(scope="module")
def speech() -> Floats:
    return read_audio(demo_clips()[0].audio)[8_000:56_000]


def _on_a_cpu(row: Row, name: str) -> Any:
    """Without a GPU two rows serve the same model in the same way."""
    return pytest.param(row, id=name, marks=pytest.mark.slow if name == "stateless3-trt" else ())


@pytest.mark.triton
@pytest.mark.parametrize("row", [_on_a_cpu(*one) for one in zip(SERVED, NAMES, strict=True)])
def test_from_the_hub_to_a_transcript_of_triton(
    row: Row, start: Callable[..., Serving], site: Site, tmp_path: Path, speech: Floats
) -> None:
    before = len(site.requests)
    serving = start(*row.on_a_cpu())
    serving.wait_ready()
    with Client(serving.grpc_url) as client:
        if row.streaming:
            with client.stream() as stream:
                for first in range(0, len(speech), 5120):
                    stream.send(speech[first : first + 5120])
                text = stream.finish().text
        else:
            text = client.transcribe(speech).text
    assert row.said in serving.err
    assert "hint" not in serving.err
    repository = row.model.removeprefix("hf://").split("/exp")[0]
    vocabulary = _vocabulary(PUBLISHED[repository](), tmp_path)
    assert text.split() == _expected(row, vocabulary, tmp_path, speech).split()
    if "wenetspeech" in repository:
        assert set(text) <= set(CHARACTERS)
    fetched = [request.path for request in site.requests[before:] if "/resolve/" in request.path]
    assert not [path for path in fetched if re.search("jit|Linv|epoch-12.pt|iter-824000|README", path)]


def _vocabulary(files: dict[str, bytes], folder: Path) -> Path:
    """tokens.txt or bpe.model of a repository, as a file in `folder`."""
    (name,) = [name for name in files if name.endswith(("tokens.txt", "bpe.model"))]
    file = folder / Path(name).name
    file.write_bytes(files[name])
    return file


def _expected(row: Row, vocabulary: Path, folder: Path, speech: Floats) -> str:
    """The text by Icefall's own export, or by PyTorch from the checkpoint where that has another chunk."""
    bundle = folder / "expected"
    bundle.mkdir()
    (bundle / vocabulary.name).symlink_to(vocabulary)
    for file in (BUNDLES / row.bundle).iterdir():
        if file.suffix == (".onnx" if row.judged else ".pt"):
            (bundle / file.name).symlink_to(file)
    if not row.streaming:
        with open_recognizer(bundle) as recognizer:
            return recognizer.transcribe([speech])[0].text
    if not row.judged:
        _say_sizes(row, bundle)
    streams = open_stream_recognizer(bundle, options=StreamOptions(endpoint=False), max_streams=1)
    stream = streams.open()
    streams.accept(stream, speech)
    streams.finish(stream)
    while streams.is_ready(stream):
        streams.step([stream])
    tokens = [streams.spec.tokens.symbols[t] for closed in stream.unreported for t in closed.hypothesis.tokens]
    return "".join(tokens).replace("<sos/eos>", "").replace("▁", " ")


def _say_sizes(row: Row, bundle: Path) -> None:
    """The checkpoint in `bundle` with the chunk and contexts of the row's flags, in moulin's stored form."""
    from moulin.bundle.stored import write_stored
    from moulin.bundle.transducer import load_transducer

    def size(flag: str) -> int:
        return int(row.words[row.words.index(flag) + 1])

    recipe = Recipe(
        chunk_size=size("--chunk-size"),
        left_context_frames=size("--left-context-frames"),
        right_context=size("--right-context"),
    )
    write_stored(load_transducer([bundle / "epoch-1.pt"], recipe=recipe), bundle / "model.safetensors")


@pytest.mark.triton
def test_longer_than_the_published_table(start: Callable[..., Serving], tmp_path: Path) -> None:
    """The ONNX files of the last model end at 40 s, as Icefall writes them; its checkpoint has no end."""
    waveform = np.tile(read_audio(demo_clips()[0].audio), 12)[: 45 * 16_000]
    served = start(*SERVED[-1].on_a_cpu())
    served.wait_ready()
    with Client(served.grpc_url) as client:
        text = client.transcribe(waveform).text
    for name in ("exp/pretrained.pt", "data/lang_char/tokens.txt"):
        (tmp_path / Path(name).name).write_bytes(PUBLISHED[WENETSPEECH]()[name])
    with open_recognizer(tmp_path / "pretrained.pt", EngineChoice("torch")) as recognizer:
        assert recognizer.transcribe([waveform])[0].text == text
    assert len(text) > 500


@pytest.mark.parametrize("row", WITH_TENSORRT, ids=["stateless3", "wenetspeech"])
def test_from_the_hub_to_a_repository_with_an_engine(
    row: Row, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `moulin serve --engine tensorrt` does, up to TensorRT: there is a stand-in for it."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", site.url)
    template = site.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    tensorrt = install(monkeypatch, tmp_path / "cache")
    sizes = ["--max-audio-sec", 12, "--max-batch", 4]
    done = moulin_here("repo", "build", *row.words[1:], "--to", tmp_path / "repository", *sizes).expect(0)
    assert "It differs from ONNX Runtime by " in done.err
    folder = tmp_path / "repository" / "transducer"
    parameters = ShimParameters.read(shim_args(folder), OfflineOptions)
    waveform = read_audio(demo_clips()[0].audio)
    with open_recognizer(parameters.encoder, parameters.engine) as recognizer:
        text = recognizer.transcribe([waveform, np.zeros(8000, np.float32)])[0].text
    assert set(text) <= set(CHARACTERS) if "wenetspeech" in row.model else re.fullmatch("[a-z ]+", text)
    assert tensorrt.builds == 1


@pytest.mark.slow
@pytest.mark.parametrize("row", [*WITH_TENSORRT, SERVED[2]], ids=["stateless3", "wenetspeech", "stateless3-streaming"])
def test_from_the_hub_through_the_real_builder(
    row: Row, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with TensorRT-RTX's own parser and builder, for a card that is a name here: nothing runs the engine.
    The streaming row is the third one's command with --engine tensorrt."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this Python or machine")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", site.url)
    template = site.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = ready_plan._Here(TENSORRT_RTX, rtx, torch.device("cpu"))
    monkeypatch.setattr(ready_plan, "_libraries_on", lambda *_: here)
    monkeypatch.setattr(ready_plan, "gpu_name", lambda _gpu: "NVIDIA L4, 8.9")
    monkeypatch.setattr(ready_plan, "drift_check", lambda *_, **__: lambda _plan: 0.001)
    words = shlex.split(shlex.join(row.words[1:]).replace("--engine onnxruntime", "--engine tensorrt"))
    limits = ["--max-batch", "4", *(["--max-audio-sec", "12"] if not row.streaming else [])]
    done = moulin_here("repo", "build", *words, "--to", tmp_path / "repository", *limits).expect(0)
    assert "for TensorRT-RTX " in done.err
    (plan,) = (tmp_path / "repository").rglob("encoder.plan")
    assert plan.stat().st_size > 1_000_000
    assert built_for(plan) == Machine("any", library_version(rtx), "TensorRT-RTX", ("8.9",))


def test_an_engine_alone(site: Site, tmp_path: Path) -> None:
    environ = {**os.environ, "HF_ENDPOINT": site.url, "XDG_CACHE_HOME": str(tmp_path)}
    done = moulin(*ROWS[-1].words, "--dry-run", environ=environ).expect(0)
    assert "--maxShapes=" in done.out
    assert "16x1930x80" in done.out


@pytest.mark.slow
def test_an_engine_alone_by_the_real_builder(site: Site, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this Python or machine")
    environ = {**os.environ, "HF_ENDPOINT": site.url, "XDG_CACHE_HOME": str(tmp_path)}
    words = [str(tmp_path / word) if word == "engines" else word for word in ROWS[-1].words]
    done = moulin(*words, "--for", "ada", environ=environ).expect(0)
    assert Path(done.out.strip()).stat().st_size > 1_000_000
    assert built_for(Path(done.out.strip())).capabilities == ("8.9",)


@pytest.mark.parametrize("row", SERVED[:7], ids=NAMES)
def test_fetching_alone_takes_the_same_address(row: Row, site: Site, tmp_path: Path) -> None:
    environ = {**os.environ, "HF_ENDPOINT": site.url, "XDG_CACHE_HOME": str(tmp_path)}
    done = moulin("fetch", row.model, environ=environ).expect(0)
    names = {file.name for file in Path(done.out.strip()).iterdir()}
    assert names & {"tokens.txt", "bpe.model"}


def test_without_tensorrt_nothing_is_fetched(site: Site, tmp_path: Path) -> None:
    before = len(site.requests)
    environ = {**os.environ, "HF_ENDPOINT": site.url, "XDG_CACHE_HOME": str(tmp_path)}
    done = moulin("serve", f"hf://{WENETSPEECH}", "--engine", "tensorrt", environ=environ).expect(1)
    assert re.match(
        r"moulin: (The engine tensorrt needs TensorRT's|.*GPU)", done.undated_err
    )  # with TensorRT-RTX: no GPU
    assert len(site.requests) == before
