"""A server's language model: n-grams or an RNN of a file for the tokens of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moulin.bundle.rnn_lm import is_rnn_lm, read_rnn_lm
from moulin.bundle.spec import ModelSpec
from moulin.bundle.tokens import TokenTable
from moulin.decoding.language_model import Fusion, LanguageModel, TokenModel, WordModel, unknown_word, word_hash
from moulin.decoding.rescoring import LanguageModelUse, Rescoring
from moulin.engine.onnxruntime.rnn_lm import OnnxRnnLm, OnnxTextScorer
from moulin.errors import BundleError, OptionsError
from moulin.language_models.arpa import read_arpa
from moulin.language_models.ngram_model import NgramModel
from moulin.language_models.ngrams import SPECIAL
from moulin.models.language_model_files import LanguageModelFiles
from moulin.quoting import listed, quoted

_MARKER = "▁"


def open_fusion(spec: ModelSpec, files: LanguageModelFiles) -> LanguageModelUse | None:
    """The language model for `spec`; None without files.

    Raises OptionsError for a CTC head, whose search uses none, and for a streaming model with an RNN that scores whole
    texts, BundleError for files that are no language models for the model's vocabulary, EngineError where ONNX Runtime
    does not run an RNN.
    """
    if files.lm is None:
        return None
    if spec.head == "ctc":
        raise OptionsError(
            "Expected no --lm: a language model is for a transducer's search, and here a CTC head is decoded",
            hint="leave out --head ctc, or --lm",
        )
    if is_rnn_lm(files.lm):
        return _of_rnn(spec, files.lm, _lodr(spec, files.lodr))
    fusion = fusion_of(NgramModel.of(read_arpa(files.lm)), spec.tokens, files.lm)
    return Fusion(fusion.model, _lodr(spec, files.lodr))


def _of_rnn(spec: ModelSpec, file: Path, lodr: TokenModel | None) -> LanguageModelUse:
    rnn = read_rnn_lm(file)
    if rnn.vocab_size not in (None, spec.vocab_size):
        raise BundleError(
            f"Expected the language model {file} to be of the model's {spec.vocab_size:,} tokens, got "
            f"{rnn.vocab_size:,}",
            hint="train it on text in the model's own tokens",
        )
    if rnn.states is not None:
        return Fusion(OnnxRnnLm(rnn), lodr)
    if spec.streaming is not None:
        raise OptionsError(
            f"Expected a language model with states for streams, got {file}, which scores whole texts",
            hint="Icefall's rnn_lm/export-onnx.py writes another beside it, with-state-*.onnx",
        )
    return Rescoring(OnnxTextScorer(rnn), lodr)


def _lodr(spec: ModelSpec, file: Path | None) -> TokenModel | None:
    if file is None:
        return None
    if is_rnn_lm(file):
        raise BundleError(f"Expected n-grams of tokens in {file}, which are subtracted, got an ONNX file")
    lodr = _token_model(NgramModel.of(read_arpa(file)), spec.tokens)
    if lodr is None:
        raise BundleError(f"Expected n-grams of the model's tokens in {file}, got others")
    return lodr


def fusion_of(ngrams: NgramModel, tokens: TokenTable, file: Path) -> Fusion:
    """n-grams of tokens, where all their words are such, else of words. Raises BundleError about `file` where they are
    neither."""
    return Fusion(_token_model(ngrams, tokens) or _word_model(ngrams, tokens, file))


def _token_model(ngrams: NgramModel, tokens: TokenTable) -> TokenModel | None:
    """The model where its words are tokens, else None."""
    symbols = set(tokens.symbols)
    if set(ngrams.words) <= set(SPECIAL) or not all(word in symbols or word in SPECIAL for word in ngrams.words):
        return None
    unknown = unknown_word(ngrams, _unknown_of(ngrams))
    words = [ngrams.ids.get(symbol, unknown) for symbol in tokens.symbols]
    return TokenModel(ngrams, np.array(words, np.int64))


def _unknown_of(ngrams: NgramModel) -> int | None:
    return next((ngrams.ids[word] for word in ("<unk>", "<UNK>") if word in ngrams.ids), None)


def _word_model(ngrams: NgramModel, tokens: TokenTable, file: Path) -> LanguageModel:
    """Raises BundleError."""
    words = [word for word in ngrams.words if word not in SPECIAL]
    if any(word.startswith(_MARKER) for word in words):
        wrong = [word for word in words if word not in set(tokens.symbols)]
        raise BundleError(
            f"{len(wrong):,} of the {len(words):,} tokens in {file} are not the model's: "
            f"{listed(map(quoted, wrong), 4)}",
            hint="make it with the model's own tokens: moulin lm build TEXT --tokens MODEL",
        )
    if tokens.kind != "bpe":
        raise BundleError(
            f"Expected n-grams of the model's tokens in {file}: only tokens with ▁ before a word spell words, and its "
            f"vocabulary is of the kind {tokens.kind}",
            hint="make one with: moulin lm build TEXT --tokens MODEL",
        )
    if not words:
        raise BundleError(f"There is no word in {file} but {', '.join(sorted(ngrams.words))}")
    letters = set(b"".join(tokens.token_bytes).decode("utf-8", errors="ignore"))
    if not any(set(word) <= letters for word in words):
        raise BundleError(
            f"None of the {len(words):,} words in {file} consists of the letters in the model's vocabulary: "
            f"{listed(map(quoted, words), 4)}",
            hint="write it as the model writes: in capitals, say",
        )
    hashes = [word_hash(data.removeprefix(b" ")) for data in tokens.token_bytes]
    of_words = np.array([word_hash(word.encode())[0] for word in words], np.uint64)
    order = np.argsort(of_words)
    return WordModel(
        ngrams,
        unknown_word(ngrams, _unknown_of(ngrams)),
        np.array([data.startswith(b" ") for data in tokens.token_bytes]),
        np.array([found for found, _ in hashes], np.uint64),
        np.array([factor for _, factor in hashes], np.uint64),
        of_words[order],
        np.array([ngrams.ids[word] for word in words], np.int64)[order],
    )
