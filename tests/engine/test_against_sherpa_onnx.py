"""sherpa-onnx runs the same files with its own features, search and text: an independent reference."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.demo.files import DEMO_MODEL
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.recognizer import Recognizer
from moulin.errors import MoulinError
from moulin.models.open_recognizer import open_recognizer
from tests.bundle.byte_bpe import byte_encode
from tests.bundles import BUNDLES, OFFLINE

from .library_features import on_library_features


def sherpa(spec: ModelSpec, method: Method) -> Any:
    assert isinstance(spec, OnnxModelSpec)
    files = spec.files
    return sherpa_onnx.OfflineRecognizer.from_transducer(
        encoder=str(files.encoder),
        decoder=str(files.decoder),
        joiner=str(files.joiner),
        tokens=str(files.tokens),
        num_threads=1,
        decoding_method="greedy_search" if method == "greedy" else method,
        max_active_paths=4,
    )


def heard_by(recognizer: Any, waveform: Floats) -> Any:
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, waveform)
    recognizer.decode_stream(stream)
    return stream.result


def heard_by_ours(recognizer: Recognizer, waveform: Floats, options: DecodingOptions) -> Hypothesis:
    found: list[Hypothesis | MoulinError] = []
    recognizer.pipeline([waveform], RowOptions.of([options]), ["waveform"], lambda _, answers: found.extend(answers))
    assert isinstance(found[0], Hypothesis)
    return found[0]


@dataclass
class Pair:
    ours: Recognizer
    theirs: Any
    options: DecodingOptions


def as_exported() -> Recognizer:
    """The demo model, in int8, as its file is, on features as sherpa-onnx has them: in int8 differences in the last
    digits become steps."""
    spec = load_bundle(DEMO_MODEL)
    pipeline = HostPipeline(spec, OnnxRuntimeRunner(spec, rewrite=False), tail_padding_sec=0.0)
    return Recognizer(spec, on_library_features(pipeline))


CASES = [pytest.param((name, method), id=f"{name}-{method}") for name in (*OFFLINE, "demo") for method in METHODS]


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    name, method = request.param
    with as_exported() if name == "demo" else open_recognizer(BUNDLES / name, tail_padding_sec=0.0) as ours:
        yield Pair(ours, sherpa(ours.spec, method), DecodingOptions(method, beam=4))


def test_tokens_times_and_text(pair: Pair, clips: list[Floats], noises: list[Floats]) -> None:
    tokens_seen = 0
    for number, waveform in enumerate([*clips[:3], *noises]):
        result = heard_by(pair.theirs, waveform)
        [transcript] = pair.ours.transcribe([waveform], [pair.options])
        hypothesis = heard_by_ours(pair.ours, waveform, pair.options)
        symbols = [pair.ours.spec.tokens.symbols[token].replace("▁", " ") for token in hypothesis.tokens]
        assert symbols == result.tokens, f"waveform {number}"
        np.testing.assert_allclose([frame * 0.04 for frame in hypothesis.frames], result.timestamps, atol=1e-5)
        # sherpa-onnx prints <sos/eos> where a random model says it; moulin prints no special symbol.
        assert transcript.text == result.text.replace("<sos/eos>", "").strip(), f"waveform {number}"
        tokens_seen += len(symbols)
    assert tokens_seen > 20


CHINESE = "你好世界天气今大不我的是在人有这上们来到时"
VOCABULARIES = {
    "char": [*CHINESE, *"地为子中说生国年着就那和要"],
    "bpe+char": ["▁a", "▁b", "c", "d", *CHINESE, "▁", "x", "y", "▁hel", "lo", "▁w", "or", "ld"],
    "byte-bpe": [
        *(f"▁{byte_encode(char)}" for char in CHINESE),
        *("a", "b", "c", "d", "▁"),
        *(f"▁{byte_encode('hel')}", "lo", byte_encode("天"), byte_encode("é"), "▁e", "f", "▁g", "h"),
    ],
}


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_text_of_other_vocabularies(tmp_path: Path, clips: list[Floats], noises: list[Floats], kind: str) -> None:
    """The same random model with another tokens.txt: Chinese characters, mixed, byte BPE."""
    folder = Path(shutil.copytree(BUNDLES / "zipformer-offline", tmp_path / "model"))
    symbols = ["<blk>", "<sos/eos>", "<unk>", *VOCABULARIES[kind]]
    symbols += [f"▁q{'z' * number}" for number in range(1, 38 - len(symbols))]
    (folder / "tokens.txt").write_text("".join(f"{symbol} {token}\n" for token, symbol in enumerate(symbols)))
    spec = load_bundle(folder)
    assert spec.tokens.kind == kind
    theirs = sherpa(spec, "greedy")
    with open_recognizer(folder, tail_padding_sec=0.0) as ours:
        for waveform in (*clips[:2], *noises):
            wanted = heard_by(theirs, waveform).text.replace("<sos/eos>", "").strip()
            text = ours.transcribe([waveform])[0].text
            assert text
            # sherpa-onnx drops the spaces that byte BPE puts between Chinese characters too, but not all of them.
            assert text.replace(" ", "") == wanted.replace(" ", "")


@pytest.mark.parametrize("method", METHODS)
def test_searches_on_a_real_encoder_equal_their_references(clips: list[Floats], method: Method) -> None:
    options = RowOptions.of([DecodingOptions(method)] * 3)
    with open_recognizer(DEMO_MODEL) as recognizer:
        host = recognizer.pipeline
        assert isinstance(host, HostPipeline)
        encoder_out, lens = host.encode(host.features([clip[:30_000] for clip in clips[:3]]))
        fast = search(host.runner, encoder_out, lens, options).hypotheses()
        plain = search_reference(host.runner, encoder_out, lens, options).hypotheses()
    assert [hypothesis.tokens for hypothesis in fast] == [hypothesis.tokens for hypothesis in plain]
    assert [hypothesis.frames for hypothesis in fast] == [hypothesis.frames for hypothesis in plain]
