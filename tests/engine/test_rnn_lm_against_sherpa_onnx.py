"""RNN language models against sherpa-onnx, which reads the same files: the same tokens at the same times. Its online
recogniser fuses them into the search, its offline one rescores the beam; LODR is an FST of the same bigrams there."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import LanguageModelUse, Rescoring
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.language_models.arpa import write_arpa
from moulin.language_models.kneser_ney import kneser_ney
from moulin.language_models.ngrams import Ngrams
from moulin.models.language_model import open_fusion
from moulin.models.language_model_files import LanguageModelFiles
from tests.openfst import write_bigram_fst
from tests.rnn_lm import export_of_texts, export_with_states, trained

from .library_features import on_library_features
from .test_hotwords_against_sherpa_onnx import _ours, _padded, _streams, same, sherpa_with_beam, spelt

SYMBOLS = load_bundle(DEMO_MODEL).tokens.symbols
DIGITS = [token for token, symbol in enumerate(SYMBOLS) if len(symbol) > 2 and symbol[0] == "▁"]


@dataclass(frozen=True)
class Files:
    with_states: Path
    of_texts: Path
    lodr: Path
    fst: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Of numbers in which most digits have the same one behind them, which the recordings are not."""
    folder, chosen = tmp_path_factory.mktemp("rnn-lm"), random.Random(0)

    def text() -> list[int]:
        said = [chosen.choice(DIGITS)]
        while len(said) < 10:
            follower = DIGITS[(DIGITS.index(said[-1]) * 3 + 1) % len(DIGITS)]
            said.append(follower if chosen.random() < 0.6 else chosen.choice(DIGITS))
        return said

    texts = [text() for _ in range(200)]
    model, ngrams = trained(texts, len(SYMBOLS)), with_every_end(texts)
    write_arpa(ngrams, folder / "bigrams.arpa")
    return Files(
        export_with_states(model, folder / "with-state.onnx"),
        export_of_texts(model, folder / "no-state.onnx"),
        folder / "bigrams.arpa",
        write_bigram_fst(ngrams, SYMBOLS, folder / "bigrams.fst"),
    )


def with_every_end(texts: list[list[int]]) -> Ngrams:
    """With all tokens at the end of some text: sherpa-onnx's knows no back-off there."""
    tokens = range(3, len(SYMBOLS))
    spread = [[*tokens[shift:], *tokens[:shift]] for shift in range(len(tokens))]
    return kneser_ney([[SYMBOLS[token] for token in text] for text in [*texts, *spread]], 2)


def judged(spec: OnnxModelSpec, lm: Path, lm_scale: float, beam: int, *lodr: Any) -> Any:
    with_lodr = {"lodr_fst": str(lodr[0]), "lodr_scale": lodr[1]} if lodr else {}
    return sherpa_with_beam(spec, beam, lm=str(lm), lm_scale=lm_scale, **with_lodr)


def opened(spec: OnnxModelSpec, lm: Path, lodr: Path | None) -> LanguageModelUse:
    fusion = open_fusion(spec, LanguageModelFiles(lm, lodr))
    assert fusion is not None
    return fusion


CASES = [(0.3, 4, None), (1.5, 8, None), (0.7, 4, 0.4), (0.5, 8, 1.0)]
"""Weights, beams, and weights of what is subtracted."""


@pytest.mark.parametrize(("scale", "beam", "lodr_scale"), CASES)
def test_streams(scale: float, beam: int, lodr_scale: float | None, files: Files, clips: list[Floats]) -> None:
    spec = load_bundle(DEMO_STREAMING_MODEL)
    recordings = [clip[8_000:40_000] for clip in clips[:2]]
    fusion = opened(spec, files.with_states, files.lodr if lodr_scale else None)
    assert isinstance(fusion, Fusion)
    runner = OnnxRuntimeStreamRunner(spec, threads=1, capacity=len(recordings))
    ours = StreamRecognizer(spec, HostStepper(spec, runner, fusion), fusion=fusion)
    judge = judged(spec, files.with_states, scale, beam, *([files.fst, -lodr_scale] if lodr_scale else []))
    usual = DecodingOptions("modified_beam_search", beam)
    plain = _streams(ours, recordings, usual)
    found = _streams(ours, recordings, usual.updated({"lm_scale": scale, "lodr_scale": lodr_scale}))
    for heard, audio in zip(found, recordings, strict=True):
        stream = judge.create_stream()
        stream.accept_waveform(16000, _padded(spec, audio))
        stream.input_finished()
        while judge.is_ready(stream):
            judge.decode_stream(stream)
        same(spelt(spec, heard), (judge.tokens(stream), judge.timestamps(stream)), f"{scale}, beam {beam}")
    assert scale < 0.5 or found != plain


@pytest.mark.parametrize(("scale", "beam", "lodr_scale"), CASES)
def test_recordings_are_rescored(
    scale: float, beam: int, lodr_scale: float | None, files: Files, clips: list[Floats]
) -> None:
    """sherpa-onnx weighs LODR by both scales there."""
    spec = load_bundle(DEMO_MODEL)
    fusion = opened(spec, files.of_texts, files.lodr if lodr_scale else None)
    assert isinstance(fusion, Rescoring)
    runner = OnnxRuntimeRunner(spec, threads=1, rewrite=False)  # as sherpa-onnx runs the file
    pipeline = on_library_features(HostPipeline(spec, runner, tail_padding_sec=0.0, fusion=fusion))
    judge = judged(spec, files.of_texts, scale, beam, *([files.fst, -lodr_scale / scale] if lodr_scale else []))
    usual = DecodingOptions("modified_beam_search", beam)
    weighed = usual.updated({"lm_scale": scale, "lodr_scale": lodr_scale})
    plain, found = _ours(pipeline, clips[:4], usual), _ours(pipeline, clips[:4], weighed)
    for heard, audio in zip(found, clips, strict=False):
        stream = judge.create_stream()
        stream.accept_waveform(16000, audio)
        judge.decode_stream(stream)
        same(spelt(spec, [heard]), (stream.result.tokens, stream.result.timestamps), f"{scale}, beam {beam}")
    assert scale < 0.5 or [one.tokens for one in found] != [one.tokens for one in plain]
