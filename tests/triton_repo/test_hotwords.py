"""The server's hotwords in a repository, and where they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.load import load_bundle
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import MoulinError, OptionsError
from moulin.models.open_recognizer import open_recognizer
from moulin.triton_repo.ensemble.repository import build_offline_ensemble
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.offline_service import OfflineRequest, OfflineService
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions


def parameters(folder: Path) -> ShimParameters[OfflineOptions]:
    """What the shim reads, of a repository that has been moved."""
    moved = folder.rename(folder.with_name("moved"))
    config = text_format.Parse((moved / "config.pbtxt").read_text(), pb.ModelConfig())
    assert config.parameters["hotwords"].string_value == "true"
    values = {name: {"string_value": value.string_value} for name, value in config.parameters.items()}
    args = {
        "model_config": json.dumps({"parameters": values}),
        "model_repository": str(moved),
        "model_version": "1",
    }
    return ShimParameters.read(args, OfflineOptions)


def test_a_file_goes_into_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("zero zero :2.5\n\nOh\n")
    options = OfflineOptions(hotwords=str(tmp_path / "mine"), decoding=DecodingOptions(hotwords_score=2.0))
    folder = build_offline_repository(load_bundle(DEMO_MODEL), tmp_path / "repository", options)
    (tmp_path / "mine").unlink()
    read = parameters(folder)
    assert read.hotwords == (Hotword("zero zero", 2.5), Hotword("Oh"))
    assert read.options.decoding.hotwords_score == 2.0


def test_without_hotwords(tmp_path: Path) -> None:
    folder = build_offline_repository(load_bundle(DEMO_MODEL), tmp_path, OfflineOptions())
    assert not (folder / "1" / "hotwords.txt").exists()
    assert parameters(folder).hotwords == ()


def test_words_of_streams(tmp_path: Path) -> None:
    folder = build_streaming_repository(
        load_bundle(DEMO_STREAMING_MODEL), tmp_path, StreamingOptions(hotwords="zero zero :2.5, oh")
    )
    assert (folder / "1" / "hotwords.txt").read_text() == "zero zero :2.5\noh\n"


@pytest.mark.parametrize(
    ("words", "match"),
    [("café", "'café' cannot be spelt"), ("no/such/file", "There is no file of hotwords"), ("", "no hotwords in")],
)
def test_faults_are_found_before_anything_is_written(tmp_path: Path, words: str, match: str) -> None:
    with pytest.raises(OptionsError, match=match):
        build_offline_repository(load_bundle(DEMO_MODEL), tmp_path / "r", OfflineOptions(hotwords=words))
    assert not (tmp_path / "r").exists()


def test_the_ensemble_uses_none(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="does not use them yet"):
        build_offline_ensemble(load_bundle(DEMO_MODEL), tmp_path, OfflineOptions(hotwords="zero"))


def test_requests() -> None:
    """One with hotwords, one whose words cannot be spelt, one with a fault, one without."""
    noise = np.random.default_rng(0).normal(0, 0.01, (1, 16_000)).astype(np.float32)
    each: list[object] = [{"hotwords": ["zero"]}, {"hotwords": ["½"]}, {"hotwords": "zero"}, {}]
    requests = [OfflineRequest(noise, np.array([[16_000]], np.int32), [json.dumps(one).encode()]) for one in each]
    with open_recognizer(DEMO_MODEL) as recognizer:
        answers = OfflineService(recognizer).answer(requests)
    assert [isinstance(answer, MoulinError) for answer in answers] == [False, True, True, False]
    assert "'½' cannot be spelt" in str(answers[1])
    assert "to be a list of phrases, got 'zero'" in str(answers[2])
