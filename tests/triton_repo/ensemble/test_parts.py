"""The parts by themselves: what is wrong with one request touches no other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from moulin.arrays import Floats, Ints
from moulin.bundle.tokens import TokenTable, read_tokens
from moulin.decoding.options import DecodingOptions
from moulin.decoding.search import search
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import FeatureExtractor
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError
from moulin.onnx_rewrites.ctc_head import BLANK_OUTPUT
from moulin.triton_repo.ensemble.components_spec import ComponentsSpec
from moulin.triton_repo.ensemble.encoder import EncoderPart
from moulin.triton_repo.ensemble.feature_extractor import FeatureExtractorPart
from moulin.triton_repo.ensemble.remote_networks import RemoteNetwork, RemotePrediction
from moulin.triton_repo.ensemble.scorer import ScorerPart
from tests.bundles import BUNDLES


def wav(*lengths: int, value: float = 0.1) -> dict[str, Any]:
    return {
        "wav": np.full((len(lengths), max(lengths)), value, np.float32),
        "wav_lens": np.array([[length] for length in lengths], np.int32),
    }


@pytest.mark.parametrize("together", [False, True])
def test_features_are_padded_to_what_the_encoder_needs(together: bool) -> None:
    part = FeatureExtractorPart(
        FeatureExtractor(feature_dim=80, threads=1), min_frames=50, pad_together=together, x_lens_dtype="int32"
    )
    short, long, empty = part.answer([wav(160, 800), wav(16_000), wav(0)])
    part.close()
    assert not isinstance(short, MoulinError)
    assert not isinstance(long, MoulinError)
    assert not isinstance(empty, MoulinError)
    # 0.3 s of silence behind each; nothing counts as the fewest frames that make one of the encoder's.
    assert [answer["x_lens"].ravel().tolist() for answer in (short, long, empty)] == [[31, 35], [130], [9]]
    assert short["x_lens"].dtype == np.int32
    widths = [answer["x"].shape[:2] for answer in (short, long, empty)]
    assert widths == ([(2, 130), (1, 130), (1, 130)] if together else [(2, 50), (1, 130), (1, 50)])


def test_bad_audio_is_its_own_failure() -> None:
    part = FeatureExtractorPart(
        FeatureExtractor(feature_dim=80, threads=1, max_audio_sec=1.0), min_frames=0, pad_together=False
    )
    wrong_length = {"wav": np.zeros((1, 10), np.float32), "wav_lens": np.array([[11]], np.int32)}
    answers = part.answer([wav(16_001), wav(10, value=np.nan), wav(1600), wrong_length, {"wav": np.zeros((1, 1))}])
    part.close()
    assert [type(answer) for answer in answers] == [AudioError, AudioError, dict, AudioError, EngineError]
    assert "at most 1 s of audio at once, got 1.0 s" in str(answers[0])


class FailsOnSevens:
    """An encoder of one frame for ten, which cannot stand the number 7."""

    num_workers, max_batch_frames = 1, 100

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:  # noqa: ARG002
        if (x == 7).any():
            raise EngineError("seven")
        return x[:, ::10, :4], x_lens // 10


def test_the_encoder_sorts_and_a_request_that_fails_fails_alone() -> None:
    part = EncoderPart(BatchedEncoder(FailsOnSevens(), channels=4), 4)

    def request(*lengths: int, value: float = 1.0) -> dict[str, Any]:
        x = np.full((len(lengths), max(lengths), 5), value, np.float32)
        return {"x": x, "x_lens": np.array([[length] for length in lengths])}

    answers = part.answer([request(30, 90), request(20, value=7), request(50)])
    too_long = part.answer([{"x": np.zeros((1, 9, 5), np.float32), "x_lens": np.array([[10]])}])
    part.close()
    first, second, third = answers
    assert isinstance(second, EngineError)
    assert str(second) == "The encoder failed: seven"
    assert not isinstance(first, MoulinError)
    assert not isinstance(third, MoulinError)
    assert (first["encoder_out"].shape, first["encoder_out_lens"].tolist()) == ((2, 9, 4), [[3], [9]])
    assert (third["encoder_out"].shape, third["encoder_out_lens"].tolist()) == ((1, 5, 4), [[5]])
    assert isinstance(too_long[0], OptionsError)


def tokens() -> TokenTable:
    return read_tokens(BUNDLES / "conformer-offline" / "tokens.txt", 37)


class Models:
    """A decoder, and a joiner that always hears the token of the frame's number."""

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {"decoder": [], "joiner": []}

    def __call__(self, model: str, tensors: Any, outputs: Sequence[str]) -> Any:
        rows = len(next(iter(tensors.values())))
        self.rows[model].append(rows)
        if model == "decoder":
            assert (outputs, tensors["y"].dtype) == (("decoder_out",), np.int64)
            return [np.zeros((rows, 4), np.float32)]
        assert (outputs, tensors["encoder_out"].dtype) == (("logit",), np.float16)
        logits = np.zeros((rows, 37), np.float32)
        logits[np.arange(rows), tensors["encoder_out"][:, 0].astype(int)] = 9
        return [logits]


def scorer(models: Models, max_rows: int = 100) -> ScorerPart:
    return scorer_of(network_of(models, max_rows))


def network_of(models: Models, max_rows: int = 100) -> RemotePrediction:
    return RemotePrediction(
        RemoteNetwork(models, "decoder", (("y", "int64"),), ("decoder_out",), max_rows),
        RemoteNetwork(models, "joiner", (("encoder_out", "float16"), ("decoder_out", "float16")), ("logit",), max_rows),
        context_size=2,
        skipped_ids=(0,),
    )


def scorer_of(network: RemotePrediction, *, has_ctc_head: bool = False) -> ScorerPart:
    spec = ComponentsSpec(
        family="conformer",
        tokens=tokens(),
        feature_dim=80,
        vocab_size=37,
        context_size=2,
        joiner_dim=4,
        streaming=None,
        has_ctc_head=has_ctc_head,
        bundle="a-model",
        tokens_file=BUNDLES / "conformer-offline" / "tokens.txt",
    )
    return ScorerPart(spec, partial(search, network, joiner_dim=4), DecodingOptions())


def frames(*rows: list[int], samples: int = 6400, options: bytes | None = None) -> dict[str, Any]:
    longest = max(map(len, rows))
    encoder_out = np.full((len(rows), longest, 4), 5, np.float32)  # padding that would be heard
    for row, heard in zip(encoder_out, rows, strict=True):
        row[: len(heard), 0] = heard
    given = {} if options is None else {"OPTIONS": np.array([[options]] * len(rows), np.object_)}
    return {
        "encoder_out": encoder_out,
        "encoder_out_lens": np.array([[len(heard)] for heard in rows]),
        "WAV_LENS": np.full((len(rows), 1), samples, np.int32),
        **given,
    }


def heard(answer: Any) -> list[str]:
    return [text.decode() for text in answer["TRANSCRIPTS"][:, 0]]


def test_utterances_of_all_requests_are_searched_together() -> None:
    """Utterances of different numbers of words, without padding, in few calls."""
    models = Models()
    table = tokens()
    first, second, nobody = scorer(models).answer(
        [frames([4, 0, 0], [6, 0, 7, 8, 9, 0, 0, 0, 10]), frames([11]), frames([12, 12], samples=0)]
    )
    assert heard(first) == [table.text((4,)), table.text((6, 7, 8, 9, 10))]
    assert heard(second) == [table.text((11,))]
    assert heard(nobody) == [""]
    # Once a token of the longest, not once a frame and utterance.
    assert len(models.rows["joiner"]) <= 6
    assert max(models.rows["joiner"]) > 8


def test_more_rows_than_a_model_takes_come_in_several_calls() -> None:
    models = Models()
    (answer,) = scorer(models, max_rows=3).answer([frames([4, 5, 6], [7, 8, 9])])
    assert heard(answer) == [tokens().text((4, 5, 6)), tokens().text((7, 8, 9))]
    assert max(models.rows["joiner"]) == 3


def test_options_of_a_request() -> None:
    beam = b'{"method": "modified_beam_search", "beam": 2}'
    wrong, right = scorer(Models()).answer(
        [frames([4], options=b'{"methd": "greedy"}'), frames([4, 0, 5], options=beam)]
    )
    assert isinstance(wrong, OptionsError)
    assert heard(right) == [tokens().text((4, 5))]


def test_fast_beam_search_has_no_alternatives() -> None:
    alone, together = scorer(Models()).answer(
        [
            frames([4, 0, 5], options=b'{"method": "fast_beam_search"}'),
            frames([4], options=b'{"method": "fast_beam_search", "nbest": 2}'),
        ]
    )
    assert heard(alone) == [tokens().text((4, 5))]
    assert isinstance(together, OptionsError)
    assert "Expected the method modified_beam_search with nbest" in str(together)


def test_blank_frames_are_skipped_where_the_encoder_says_which() -> None:
    skip = b'{"blank_skip": 0.9}'
    blank = np.log(np.array([[0.95, 0.1, 0.8, 0.91]], np.float32))[..., None]
    part = scorer_of(network_of(Models()), has_ctc_head=True)
    asked, plain = part.answer(
        [frames([4, 5, 6, 7], options=options) | {BLANK_OUTPUT: blank} for options in (skip, None)]
    )
    assert heard(asked) == [tokens().text((5, 6))]
    assert heard(plain) == [tokens().text((4, 5, 6, 7))]
    (refused,) = scorer(Models()).answer([frames([4], options=skip)])
    assert isinstance(refused, OptionsError)
    assert "needs a CTC head beside the transducer, and a-model has none" in str(refused)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_what_is_not_a_number_is_its_requests_own_failure() -> None:
    broken = frames([4, 5])
    broken["encoder_out"][0, 1] = np.nan

    class Honest(Models):
        """A joiner that gives NaN for NaN."""

        def __call__(self, model: str, tensors: Any, outputs: Sequence[str]) -> Any:
            if model == "decoder":
                return super().__call__(model, tensors, outputs)
            bad = np.isnan(tensors["encoder_out"]).any(axis=1)
            (logits,) = super().__call__(
                model, {name: np.nan_to_num(value) for name, value in tensors.items()}, outputs
            )
            logits[bad] = np.nan
            return [logits]

    failed, fine = scorer(Honest()).answer([broken, frames([6])])
    assert isinstance(failed, EngineError)
    assert "Expected numbers from the encoder, got NaN or infinity" in str(failed)
    assert heard(fine) == [tokens().text((6,))]


def test_a_model_that_fails_and_lengths_that_do_not_fit() -> None:
    def fails(model: str, tensors: Any, outputs: Sequence[str]) -> Any:
        raise EngineError(f"The model {model} failed: {outputs[0]} {len(tensors)}")

    part = scorer(Models())
    broken = scorer_of(
        RemotePrediction(
            RemoteNetwork(fails, "decoder", (("y", "int64"),), ("decoder_out",), 9),
            RemoteNetwork(fails, "joiner", (), ("logit",), 9),
            2,
            (0,),
        )
    )
    (answer,) = broken.answer([frames([4])])
    assert isinstance(answer, EngineError)
    assert str(answer) == "Recognition failed: The model decoder failed: decoder_out 1"
    (refused,) = part.answer([frames([4]) | {"encoder_out_lens": np.array([[2]])}])
    assert isinstance(refused, OptionsError)
