"""The server's language model in a repository, and where it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import BundleError, MoulinError, OptionsError
from moulin.language_models.arpa import write_arpa
from moulin.language_models.kneser_ney import kneser_ney
from moulin.models.language_model_files import LanguageModelFiles
from moulin.models.open_recognizer import open_recognizer
from moulin.triton_repo.ensemble.repository import build_offline_ensemble
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.offline_service import OfflineRequest, OfflineService
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.rnn_lm import RnnLm, export_with_states
from tests.triton_repo.shim_args import shim_args


@pytest.fixture
def files(tmp_path: Path) -> LanguageModelFiles:
    write_arpa(kneser_ney([["ONE", "TWO"]], 2), tmp_path / "words.gz", gzipped=True)
    write_arpa(kneser_ney([["▁ONE"]], 2), tmp_path / "tokens.arpa")
    return LanguageModelFiles(tmp_path / "words.gz", tmp_path / "tokens.arpa")


def test_the_files_go_into_the_repository(tmp_path: Path, files: LanguageModelFiles) -> None:
    """Which may be moved."""
    options = OfflineOptions(lm=files, decoding=DecodingOptions(lm_scale=0.5))
    build_offline_repository(load_bundle(DEMO_MODEL), tmp_path / "r", options)
    for file in (files.lm, files.lodr):
        assert file is not None
        file.unlink()
    moved = (tmp_path / "r").rename(tmp_path / "moved")
    read = ShimParameters.read(shim_args(moved / "transducer"), OfflineOptions)
    with open_recognizer(read.encoder, read.engine, options=read.options.decoding, lm=read.lm) as recognizer:
        assert (recognizer.options.lm_scale, recognizer.options.lodr_scale) == (0.5, 0.1)
        noise = np.random.default_rng(0).normal(0, 0.01, (1, 16_000)).astype(np.float32)
        each: list[object] = [{"lm_scale": 0}, {"lm_scale": 11}, {"lm_scale": 0.2, "lodr_scale": 0}, {}]
        requests = [OfflineRequest(noise, np.array([[16_000]], np.int32), [json.dumps(one).encode()]) for one in each]
        answers = OfflineService(recognizer).answer(requests)
    assert [isinstance(answer, MoulinError) for answer in answers] == [False, True, False, False]
    assert "Expected lm-scale of 0 to 10, got 11" in str(answers[1])


def test_an_rnn_goes_into_the_repository(tmp_path: Path) -> None:
    """Under a name that tells what it is, whatever it was called."""
    file = export_with_states(RnnLm(30), tmp_path / "rnn")
    files = LanguageModelFiles(file)
    offline = build_offline_repository(load_bundle(DEMO_MODEL), tmp_path / "r", OfflineOptions(lm=files))
    streams = StreamingOptions(lm=files, model_name="streams")
    streaming = build_streaming_repository(load_bundle(DEMO_STREAMING_MODEL), tmp_path / "r", streams)
    of_folders = (
        ShimParameters.read(shim_args(offline), OfflineOptions).lm,
        ShimParameters.read(shim_args(streaming), StreamingOptions).lm,
    )
    for folder, lm in zip((offline, streaming), of_folders, strict=True):
        assert lm == LanguageModelFiles(folder / "1" / "lm.onnx")
        assert (folder / "1" / "lm.onnx").read_bytes() == file.read_bytes()


def test_of_streams(tmp_path: Path, files: LanguageModelFiles) -> None:
    folder = build_streaming_repository(load_bundle(DEMO_STREAMING_MODEL), tmp_path / "r", StreamingOptions(lm=files))
    assert (folder / "1" / "lm.arpa").read_bytes()[:2] == b"\x1f\x8b"
    assert (folder / "1" / "lodr.arpa").exists()


def test_faults_are_found_before_anything_is_written(tmp_path: Path, files: LanguageModelFiles) -> None:
    (tmp_path / "bad.arpa").write_text("\\data\\\nngram 1=x\n")
    with pytest.raises(BundleError, match="Expected ngram 1=COUNT, of at least one word on line 2"):
        build_offline_repository(
            load_bundle(DEMO_MODEL), tmp_path / "r", OfflineOptions(lm=LanguageModelFiles(tmp_path / "bad.arpa"))
        )
    assert not (tmp_path / "r").exists()
    with pytest.raises(OptionsError, match="layout ensemble uses no language model"):
        build_offline_ensemble(load_bundle(DEMO_MODEL), tmp_path, OfflineOptions(lm=files))
    with pytest.raises(OptionsError, match="Expected lm_scale 0, as there is no language model here"):
        build_offline_repository(
            load_bundle(DEMO_MODEL), tmp_path / "r", OfflineOptions(decoding=DecodingOptions(lm_scale=0.5))
        )
