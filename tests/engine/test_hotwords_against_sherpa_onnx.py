"""Hotwords against sherpa-onnx, which has its own spelling, automaton and search: the same tokens at the same times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec
from moulin.decoding.found import Hypothesis
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.hotwords import Hotword, given_hotwords
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs
from moulin.decoding.row_options import RowOptions
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import MoulinError
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES, MORE_OFFLINE, MORE_STREAMING, OFFLINE, STREAMING

from .library_features import on_library_features
from .test_stream_parity import counted_as_sherpa_does, silence_for, streaming_spec

DIGITS = {
    "one phrase": "THREE THREE",
    "overlapping": "ONE TWO\nTWO THREE FOUR\nFOUR FIVE",
    "shared beginnings": "SEVEN EIGHT\nSEVEN NINE\nSEVEN NINE OH\nSIX",
    "one within another": "ONE TWO THREE FOUR\nTWO THREE\nTHREE",
    "other words": "NINE SIX FOX\nGHOST :4.0\nZERO EIGHT OH ZERO",
    "scores": "FIVE FIVE :5.0\nFIVE OH :3.5\nFIVE :0.5\nEIGHT :0.7",
}
LETTERS = {
    "one phrase": "ab",
    "overlapping": "abc\nbcd a\nb c d",
    "shared beginnings": "s a\ns b\ns b c\nq",
    "one within another": "abcd\nb\nk l m n\nl m",
    "scores": "a b :3.0\na c :2.0\nd :0.5\ne f g :1.0",
}
"""Phrases of the tiny models, whose tokens are letters."""


def sherpa_with_beam(spec: OnnxModelSpec, beam: int, **more: Any) -> Any:
    """sherpa-onnx's recognizer of `spec`, by modified beam search."""
    files, kind = spec.files, sherpa_onnx.OnlineRecognizer if spec.streaming else sherpa_onnx.OfflineRecognizer
    return kind.from_transducer(
        encoder=str(files.encoder),
        decoder=str(files.decoder),
        joiner=str(files.joiner),
        tokens=str(files.tokens),
        num_threads=1,
        decoding_method="modified_beam_search",
        max_active_paths=beam,
        **more,
    )


BEAMS_AND_SCORES = ((4, 1.5), (2, 3.0), (8, 0.8), (4, 4.0))


class Judge:
    """sherpa-onnx with a model and hotwords: `modeling_unit` bpe, `bpe_vocab` of the model's pieces with the scores of
    its bpe.model, or all alike, which makes the fewest pieces the best."""

    def __init__(self, spec: OnnxModelSpec, folder: Path, hotwords: str, *, beam: int, score: float) -> None:
        (folder / "hotwords.txt").write_text(hotwords + "\n")
        (folder / "bpe.vocab").write_text("".join(f"{piece}\t{_score(spec, piece)}\n" for piece in spec.tokens.symbols))
        self.recognizer = sherpa_with_beam(
            spec,
            beam,
            modeling_unit="bpe",
            bpe_vocab=str(folder / "bpe.vocab"),
            hotwords_file=str(folder / "hotwords.txt"),
            hotwords_score=score,
        )

    def heard(self, waveform: Floats, *, streaming: bool) -> tuple[list[str], list[float]]:
        stream = self.recognizer.create_stream()
        stream.accept_waveform(16000, waveform)
        if not streaming:
            self.recognizer.decode_stream(stream)
            return stream.result.tokens, stream.result.timestamps
        stream.input_finished()
        while self.recognizer.is_ready(stream):
            self.recognizer.decode_stream(stream)
        return self.recognizer.tokens(stream), self.recognizer.timestamps(stream)


def _score(spec: OnnxModelSpec, piece: str) -> float:
    if spec.tokens.bpe_model is None:
        return -1.0
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(spec.tokens.bpe_model))
    return float(model.get_score(model.piece_to_id(piece)))


def spec_of(name: str) -> OnnxModelSpec:
    demo = {"demo": DEMO_MODEL, "demo-streaming": DEMO_STREAMING_MODEL}
    return load_bundle(demo.get(name, BUNDLES / name))


def words_of(name: str) -> dict[str, str]:
    return DIGITS if name.startswith("demo") else LETTERS


def spelt(spec: OnnxModelSpec, found: Sequence[Hypothesis]) -> tuple[list[str], list[float]]:
    tokens = [token for hypothesis in found for token in hypothesis.tokens]
    frames = [frame for hypothesis in found for frame in hypothesis.frames]
    return [spec.tokens.symbols[token].replace("▁", " ") for token in tokens], [frame * 0.04 for frame in frames]


def same(ours: tuple[list[str], list[float]], theirs: tuple[list[str], list[float]], about: str) -> None:
    assert ours[0] == theirs[0], about
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5, err_msg=about)


def options_of(words: str, beam: int, score: float) -> DecodingOptions:
    return DecodingOptions("modified_beam_search", beam, hotwords=_hotwords(words), hotwords_score=score)


def _hotwords(words: str) -> tuple[Hotword, ...]:
    return given_hotwords(words.replace("\n", ","))


@pytest.mark.parametrize("name", [*OFFLINE, *MORE_OFFLINE, "demo"])
def test_recordings(name: str, tmp_path: Path, clips: list[Floats], noises: list[Floats]) -> None:
    spec = spec_of(name)
    # In int8, as the demo is, another form of the file rounds otherwise.
    runner = OnnxRuntimeRunner(spec, threads=1, rewrite=name != "demo")
    pipeline = HostPipeline(spec, runner, tail_padding_sec=0.0)
    if name == "demo":
        on_library_features(pipeline)
    graphs = HotwordGraphs(spec.tokens.spell)
    recordings = clips[:3] if name == "demo" else [*clips[:2], *noises[:2]]
    usual = _ours(pipeline, recordings, DecodingOptions("modified_beam_search"))
    changed = 0
    for (what, words), (beam, score) in zip(words_of(name).items(), cycle(BEAMS_AND_SCORES)):
        judge = Judge(spec, tmp_path, words, beam=beam, score=score)
        options = options_of(words, beam, score)
        found = _ours(pipeline, recordings, options, graphs.of(options))
        for number, waveform in enumerate(recordings):
            theirs = judge.heard(waveform, streaming=False)
            same(spelt(spec, [found[number]]), theirs, f"{what}, beam {beam}, score {score}, recording {number}")
        changed += sum(one.tokens != other.tokens for one, other in zip(found, usual, strict=True))
    assert changed >= 3, "hotwords change what is heard"


def _ours(
    pipeline: HostPipeline, recordings: Sequence[Floats], options: DecodingOptions, graphs: Graphs = NO_GRAPHS
) -> list[Hypothesis]:
    """Each recording by itself: without silence behind them an encoder's padding reaches into the last frames."""
    found: list[Hypothesis] = []

    def answer(_: Sequence[int], heard: Sequence[Hypothesis | MoulinError]) -> None:
        (one,) = heard
        assert isinstance(one, Hypothesis)
        found.append(one)

    for waveform in recordings:
        pipeline([waveform], RowOptions.of([options], [graphs]), ["waveform"], answer)
    return found


@pytest.mark.parametrize("name", [*STREAMING, *MORE_STREAMING, "demo-streaming"])
def test_streams(name: str, tmp_path: Path, clips: list[Floats], noises: list[Floats]) -> None:
    spec = counted_as_sherpa_does(spec_of(name))
    recordings = [*(clip[8_000:48_000] for clip in clips[:2]), noises[0]]
    ours = StreamRecognizer(
        spec,
        HostStepper(spec, OnnxRuntimeStreamRunner(spec, threads=1, capacity=len(recordings))),
        hotwords=HotwordGraphs(spec.tokens.spell),
    )
    changed = 0
    usual = _streams(ours, recordings, DecodingOptions("modified_beam_search"))
    for (what, words), (beam, score) in zip(words_of(name).items(), cycle(BEAMS_AND_SCORES)):
        judge = Judge(spec, tmp_path, words, beam=beam, score=score)
        found = _streams(ours, recordings, options_of(words, beam, score))
        for number, audio in enumerate(recordings):
            theirs = judge.heard(_padded(spec, audio), streaming=True)
            same(spelt(spec, found[number]), theirs, f"{what}, beam {beam}, score {score}, recording {number}")
        changed += sum(spelt(spec, one) != spelt(spec, two) for one, two in zip(found, usual, strict=True))
    assert changed >= 2, "hotwords change what is heard"


def _padded(spec: OnnxModelSpec, audio: Floats) -> Floats:
    """`audio` with as much silence as ours adds, in whole windows."""
    streaming = streaming_spec(spec)
    look_ahead = streaming.window_frames - streaming.chunk_frames
    windows = -(-((len(audio) + 4800 + 80) // 160 - look_ahead) // streaming.chunk_frames)
    return silence_for(windows, streaming.window_frames, streaming.chunk_frames, audio)


def _streams(ours: StreamRecognizer, recordings: Sequence[Floats], options: DecodingOptions) -> list[list[Hypothesis]]:
    """All recordings as streams that step together, before their ends: sherpa-onnx's streams keep the bonus of a phrase
    that is not complete in the end, which its recordings lose, as do the streams of k2-fsa's sherpa and ours."""
    assert isinstance(ours.spec, OnnxModelSpec)
    streams = [ours.open(StreamOptions(options, endpoint=False)) for _ in recordings]
    for stream, audio in zip(streams, recordings, strict=True):
        ours.accept(stream, _padded(ours.spec, audio))
    while ready := [stream for stream in streams if ours.is_ready(stream)]:
        ours.step(ready)
    found = [[ours._said.hypothesis(stream.slot)] for stream in streams]
    for stream in streams:
        ours.close(stream)
    return found
