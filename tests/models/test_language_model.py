"""Language models of files for a model's tokens, and what they change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.decoding.language_model import Fusion, TokenModel, WordModel
from moulin.decoding.options import DecodingOptions
from moulin.decoding.rescoring import Rescoring
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import BundleError, MoulinError, OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import count_word_errors
from moulin.language_models.arpa import write_arpa
from moulin.language_models.kneser_ney import kneser_ney
from moulin.models.engine_choice import EngineChoice
from moulin.models.host_search import check_rnn_lm, needs_host_search
from moulin.models.language_model import open_fusion
from moulin.models.language_model_files import LanguageModelFiles, with_scales
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES
from tests.rnn_lm import RnnLm, export_of_texts, export_with_states, trained

BEAM = DecodingOptions("modified_beam_search")
DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]


def numbers(lines: int = 2000) -> list[list[str]]:
    """What the demo recordings say: ten digits each."""
    chosen = random.Random(0)
    return [chosen.choices(DIGITS, k=10) for _ in range(lines)]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lm") / "words.arpa"
    write_arpa(kneser_ney(numbers(), 2), file)
    return file


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file, table = tmp_path_factory.mktemp("lm") / "tokens.arpa", load_bundle(DEMO_MODEL).tokens
    text = ([table.symbols[token] for token in table.spell(" ".join(line))] for line in numbers())
    write_arpa(kneser_ney(text, 2), file)
    return file


def test_by_tokens_and_by_words(words: Path, tokens: Path) -> None:
    spec = load_bundle(DEMO_MODEL)
    found = [open_fusion(spec, LanguageModelFiles(file)) for file in (words, tokens)]
    assert [type(fusion.model) for fusion in found if isinstance(fusion, Fusion)] == [WordModel, TokenModel]
    assert open_fusion(spec, LanguageModelFiles()) is None
    both = open_fusion(spec, LanguageModelFiles(words, tokens))
    assert isinstance(both, Fusion)
    assert both.width == 3


@pytest.mark.parametrize("kind", ["words", "tokens"])
def test_a_bigram_of_what_is_said_makes_fewer_errors(kind: str, request: pytest.FixtureRequest) -> None:
    """9 errors in 140 words without, 8 with."""
    clips = demo_clips()
    waveforms = [read_audio(clip.audio) for clip in clips]
    with open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(request.getfixturevalue(kind))) as recognizer:
        assert recognizer.options.lm_scale == 0.3

        def errors(options: DecodingOptions) -> int:
            heard = recognizer.transcribe(waveforms, [options] * len(waveforms))
            return sum(count_word_errors(clip.text, one.text).errors for clip, one in zip(clips, heard, strict=True))

        assert errors(recognizer.options) == 8
        assert errors(replace(recognizer.options, lm_scale=0)) == errors(BEAM) == 9


def test_streams_have_it_too(words: Path) -> None:
    waveform = read_audio(demo_clips()[0].audio)
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=2, lm=LanguageModelFiles(words)) as recognizer:

        def heard(options: Sequence[StreamOptions]) -> list[str]:
            streams = [recognizer.open(each) for each in options]
            for stream in streams:
                recognizer.accept(stream, waveform)
                recognizer.finish(stream)
            while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
                recognizer.step(ready)
            texts = [recognizer.text(stream) for stream in streams]
            for stream in streams:
                recognizer.close(stream)
            return texts

        options = [StreamOptions(BEAM), StreamOptions(replace(BEAM, lm_scale=3.0))]
        together = heard(options)
        assert together == [heard([each])[0] for each in options]
        assert together[0] != together[1]
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=2) as plain:
        stream = plain.open(options[0])
        plain.accept(stream, waveform)
        plain.finish(stream)
        assert plain.advance(stream).is_final
        assert plain.text(stream) == together[0]


def arpa(file: Path, *said: str) -> LanguageModelFiles:
    write_arpa(kneser_ney([list(said)], 2), file)
    return LanguageModelFiles(file)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (("zero", "one"), "None of the 2 words in .* consists of the letters in the model's vocabulary: 'zero', 'one'"),
        (("▁ZERO", "▁TEN"), "1 of the 2 tokens in .* are not the model's: '▁TEN'"),
    ],
)
def test_n_grams_of_something_else(tmp_path: Path, said: tuple[str, ...], match: str) -> None:
    with pytest.raises(BundleError, match=match):
        open_recognizer(DEMO_MODEL, lm=arpa(tmp_path / "lm", *said))


def test_n_grams_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lm"
    file.write_text("\\data\\\nngram 1=2\n\n\\1-grams:\n-1 <s>\n-1 </s>\n\n\\end\\\n")
    with pytest.raises(BundleError, match=r"There is no word in .* but </s>, <s>"):
        open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(file))


def test_what_is_refused(tmp_path: Path, words: Path) -> None:
    files = LanguageModelFiles(words)
    with pytest.raises(OptionsError, match="Expected no --lm: a language model is for"):
        open_recognizer(BUNDLES / "zipformer2-ctc-offline", EngineChoice(head="ctc"), lm=files)
    with pytest.raises(OptionsError, match="with a language model, got greedy"):
        open_recognizer(DEMO_MODEL, lm=files, options=DecodingOptions(hotwords_method="refuse"))
    with pytest.raises(BundleError, match="Expected n-grams of the model's tokens in"):
        open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(words, words))
    with pytest.raises(BundleError, match="There is no file of n-grams"):
        open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(tmp_path / "none"))
    with pytest.raises(OptionsError, match="Expected --lm with --lodr"):
        LanguageModelFiles(lodr=words)
    with open_recognizer(DEMO_MODEL) as recognizer:
        waveform = read_audio(demo_clips()[0].audio)
        for options in (DecodingOptions(lm_scale=0.5), DecodingOptions(lodr_scale=0.5)):
            [answer] = recognizer.transcribe_each([waveform], [options], ["clip"])
            assert isinstance(answer, MoulinError)
            assert "_scale 0, as there is no" in str(answer)


@pytest.fixture(scope="module")
def rnn() -> RnnLm:
    table = load_bundle(DEMO_MODEL).tokens
    return trained([table.spell(" ".join(line)) for line in numbers(50)], len(table), steps=30)


def test_rnns(rnn: RnnLm, tokens: Path, tmp_path: Path) -> None:
    """One with states is fused, one of whole texts rescores, here with n-grams to subtract; each request has its own
    weight, and none is the search without."""
    waveform = read_audio(demo_clips()[0].audio)
    with open_recognizer(DEMO_MODEL, options=BEAM) as plain:
        [usual] = plain.transcribe([waveform])
    files = (export_with_states(rnn, tmp_path / "lm.onnx"), None), (export_of_texts(rnn, tmp_path / "texts"), tokens)
    for file, lodr in files:
        with open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(file, lodr)) as recognizer:
            weights = [replace(recognizer.options, lm_scale=scale, nbest=2) for scale in (0.0, 0.3, 8.0)]
            none, some, much = recognizer.transcribe([waveform] * 3, weights)
            assert none.text == usual.text
            assert some.alternatives[0].score != none.alternatives[0].score
            assert much.alternatives[0].score < some.alternatives[0].score


def test_rnns_of_streams(rnn: RnnLm, tmp_path: Path) -> None:
    file = export_with_states(rnn, tmp_path / "lm.onnx")
    waveform = read_audio(demo_clips()[0].audio)
    with open_stream_recognizer(DEMO_STREAMING_MODEL, max_streams=2, lm=LanguageModelFiles(file)) as recognizer:
        assert recognizer.options.decoding.lm_scale == 0.3
        streams = [recognizer.open(StreamOptions(replace(BEAM, lm_scale=scale))) for scale in (0.0, 8.0)]
        for stream in streams:
            recognizer.accept(stream, waveform)
        while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
            recognizer.step(ready)
        without, much = map(recognizer.text, streams)
        assert without.startswith("ONE")
        assert len(much) < len(without)


def test_rnns_that_are_refused(rnn: RnnLm, words: Path, tmp_path: Path) -> None:
    of_texts = export_of_texts(rnn, tmp_path / "texts.onnx")
    with pytest.raises(OptionsError, match=r"Expected a language model with states for streams, got .*texts.onnx"):
        open_stream_recognizer(DEMO_STREAMING_MODEL, lm=LanguageModelFiles(of_texts))
    with pytest.raises(BundleError, match=r"Expected n-grams of tokens in .* got an ONNX file"):
        open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(words, of_texts))
    other = export_with_states(RnnLm(31), tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="to be of the model's 30 tokens, got 31"):
        open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(other))
    spec, files = load_bundle(DEMO_MODEL), LanguageModelFiles(of_texts)
    assert isinstance(open_fusion(spec, files), Rescoring)
    assert needs_host_search(None, files) == "it has no RNN language models"
    assert needs_host_search(None, LanguageModelFiles(words)) is None
    on_card = EngineChoice("torch", "cuda", precision="fp16")
    with pytest.raises(OptionsError, match="Expected n-grams with our GPU engine, got the RNN"):
        check_rnn_lm(spec, on_card, files)
    check_rnn_lm(spec, on_card, LanguageModelFiles(words))
    check_rnn_lm(spec, EngineChoice("onnxruntime", "cuda"), files)


def test_the_fst_of_other_recognisers(tmp_path: Path, words: Path) -> None:
    (tmp_path / "2gram.fst").write_bytes(b"\xd6\xfd\xb2\x7e\x06\x00\x00\x00vector")
    with pytest.raises(BundleError, match="is an FST of n-grams, and moulin reads the ARPA file"):
        open_recognizer(DEMO_MODEL, lm=LanguageModelFiles(words, tmp_path / "2gram.fst"))


def test_usual_weights() -> None:
    both = LanguageModelFiles(Path("a"), Path("b"))
    assert with_scales(BEAM, LanguageModelFiles()) == BEAM
    assert with_scales(BEAM, both) == replace(BEAM, lm_scale=0.3, lodr_scale=0.1)
    assert with_scales(replace(BEAM, lm_scale=0.0), LanguageModelFiles(Path("a"))) == replace(BEAM, lm_scale=0.0)
