"""Repositories as people publish them, fetched from a hub on this machine and run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from moulin.bundle.files import find_bundle_files
from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.evaluate.manifest import demo_clips
from tests.bundle.sentence_pieces import trained
from tests.bundle.test_foreign import write_nemo
from tests.bundles import BUNDLES
from tests.fetch.archives import a_file, tar_of
from tests.fetch.site import Site, files_of, publish, running

from .command import Finished, moulin

CLIP = demo_clips()[0].audio
ROLES = ("encoder", "decoder", "joiner")
KNOWN = "csukuangfj/sherpa-onnx-streaming-zipformer-en-2023-06-26"
KNOWN_COMMIT = "672fbf1b30579d6585301139bb363f42a0ad4a24"
ARCHIVE = "/icefall-asr-tiny.tar.bz2"
LANGUAGES = "/many-languages.tar.bz2"


def networks(bundle: str, name: str = "{}.onnx", folder: str = "") -> dict[str, bytes]:
    """The three networks of a bundle under names of this form."""
    files = find_bundle_files(BUNDLES / bundle, "fp32")
    return {
        folder + name.format(role): file.read_bytes()
        for role, file in zip(ROLES, (files.encoder, files.decoder, files.joiner), strict=True)
    }


def tokens(bundle: str) -> bytes:
    return (BUNDLES / bundle / "tokens.txt").read_bytes()


def forms(label: str) -> dict[str, bytes]:
    """A streaming model with two left contexts."""
    return {
        **networks("zipformer2-streaming", f"{{}}{label}-chunk-16-left-64.onnx"),
        **networks("lstm-streaming", f"{{}}{label}-chunk-16-left-128.onnx"),
        "tokens.txt": tokens("lstm-streaming"),
    }


def languages() -> dict[str, bytes]:
    return {
        **networks("lstm-streaming", "de_{}.onnx"),
        **networks("conformer-offline", "en_{}.onnx"),
        "de_tokens.txt": tokens("lstm-streaming"),
        "en_tokens.txt": tokens("conformer-offline"),
    }


def clone() -> dict[str, bytes]:
    """Icefall's layout, with both forms."""
    return {
        **networks("conformer-offline", "{}-epoch-1-avg-1.onnx", "exp/"),
        "exp/pretrained.pt": (BUNDLES / "conformer-offline" / "epoch-1.pt").read_bytes(),
        "exp/jit_script.pt": b"PK",
        "data/lang_char/tokens.txt": tokens("conformer-offline"),
        "data/lang_char/L.pt": b"PK",
        "README.md": b"",
    }


def nemo(folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    write_nemo(folder)
    return files_of(folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    checkpoint = (BUNDLES / "conformer-offline" / "epoch-1.pt").read_bytes()
    with running(Site()) as serving:
        publish(serving, forms("-epoch-99-avg-1"), KNOWN, KNOWN_COMMIT)
        publish(serving, languages(), "a/languages")
        publish(serving, {"model.pt": checkpoint, "bpe.model": trained(37), "config.yaml": b""}, "a/checkpoint")
        publish(serving, clone(), "a/clone")
        publish(serving, nemo(tmp_path_factory.mktemp("nemo") / "files"), "a/nemo")
        serving.files[ARCHIVE] = tar_of(*(a_file(f"icefall-asr-tiny/{name}", data) for name, data in clone().items()))
        serving.files[LANGUAGES] = tar_of(*(a_file(f"many/{name}", data) for name, data in languages().items()))
        yield serving


@pytest.fixture
def environ(site: Site, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": site.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def folder_of(done: Finished) -> Path:
    return Path(done.expect(0).out.removesuffix("\n"))


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def facts(*arguments: object, environ: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(moulin("inspect", *arguments, "--json", environ=environ).expect(0).out)
    return found


def test_the_known_model_with_two_forms(environ: dict[str, str]) -> None:
    other = f"hf://{KNOWN}@{KNOWN_COMMIT}/encoder-epoch-99-avg-1-chunk-16-left-64.onnx"
    done = moulin("fetch", "zipformer-en-streaming", environ=environ)
    label = "-epoch-99-avg-1-chunk-16-left-128"
    assert names(folder_of(done)) == {*(f"{role}{label}.onnx" for role in ROLES), "tokens.txt"}
    assert (
        f"holds one model in 2 forms; taking encoder{label}.onnx, the smallest chunk with the largest left context "
        f"(others: encoder-epoch-99-avg-1-chunk-16-left-64.onnx; to take one: {other})"
    ) in done.err
    assert load_bundle(folder_of(done)).family == "lstm"
    assert facts(other, environ=environ)["family"] == "zipformer2"


def test_one_of_several_languages(environ: dict[str, str], tmp_path: Path) -> None:
    refused = moulin("fetch", "hf://a/languages", environ=environ).expect(1)
    assert refused.err.endswith(
        "moulin: hf://a/languages holds models of 2 languages: de, en\n  hint: choose one, say --language de\n"
    )
    folder = folder_of(moulin("fetch", "hf://a/languages", "--language", "de", environ=environ))
    assert names(folder) == {*(f"de_{role}.onnx" for role in ROLES), "de_tokens.txt"}
    assert facts("hf://a/languages", "--language", "en", environ=environ)["mode"] == "offline"
    repository = tmp_path / "repository"
    build = ("repo", "build", "hf://a/languages", "--language", "de", "--to", repository)
    moulin(*build, environ=environ).expect(0)
    assert load_bundle(repository / "transducer" / "1" / "bundle").family == "lstm"


@pytest.mark.needs("torch")
def test_a_checkpoint_with_a_bpe_model_alone(environ: dict[str, str]) -> None:
    folder = folder_of(moulin("fetch", "hf://a/checkpoint", environ=environ))
    assert names(folder) == {"model.pt", "bpe.model"}
    said = moulin("transcribe", CLIP, "--model", "hf://a/checkpoint", environ=environ).expect(0).out
    assert said.strip()
    assert set(said.lower()) <= set("abcdefghijklmnopqrstuvwxyz \n")


def test_a_nemo_export_is_refused_after_the_download(environ: dict[str, str]) -> None:
    for _ in range(2):  # also where it is there already
        done = moulin("fetch", "hf://a/nemo", environ=environ).expect(1)
        assert done.out == ""
        assert "encoder.int8.onnx is a NeMo export (EncDecRNNTBPEModel)" in done.err
        assert "hint: sherpa-onnx runs it" in done.err
    done = moulin("transcribe", CLIP, "--model", "hf://a/nemo", environ=environ).expect(1)
    assert "is a NeMo export" in done.err


@pytest.mark.needs("torch")
def test_onnx_files_on_a_cpu_and_the_checkpoint_on_a_gpu(environ: dict[str, str]) -> None:
    onnx = moulin("fetch", "hf://a/clone", environ=environ)
    assert names(folder_of(onnx)) == {*(f"{role}-epoch-1-avg-1.onnx" for role in ROLES), "tokens.txt"}
    assert "taking" not in onnx.err
    checkpoint = moulin("fetch", "hf://a/clone", "--device", "cuda", environ=environ)
    assert names(folder_of(checkpoint)) == {"pretrained.pt", "tokens.txt"}
    assert (
        "hf://a/clone has ONNX files and a checkpoint; taking exp/pretrained.pt for PyTorch and the GPU engine "
        "(--engine onnxruntime takes the ONNX files)\n"
    ) in checkpoint.err
    int8 = moulin("fetch", "hf://a/clone", "--device", "cuda", "--precision", "int8", environ=environ).expect(1)
    assert "has no int8 encoder, only fp32" in int8.err


@pytest.mark.needs("torch")
def test_an_archive_in_icefalls_layout(site: Site, environ: dict[str, str]) -> None:
    folder = folder_of(moulin("fetch", site.url + ARCHIVE, environ=environ))
    assert folder.parts[-2:] == ("icefall-asr-tiny", "exp")
    assert load_bundle(folder).family == "conformer"
    on_gpu = folder_of(moulin("fetch", site.url + ARCHIVE, "--device", "cuda", environ=environ))
    assert on_gpu == folder / "pretrained.pt"
    assert load_model(on_gpu).family == "conformer"


def test_an_archive_of_several_languages(site: Site, environ: dict[str, str]) -> None:
    refused = moulin("fetch", site.url + LANGUAGES, environ=environ).expect(1)
    assert "many-languages.tar.bz2 holds models of 2 languages: de, en" in refused.err
    asked = len(site.asked(LANGUAGES))
    file = folder_of(moulin("fetch", site.url + LANGUAGES, "--language", "en", environ=environ))
    assert len(site.asked(LANGUAGES)) == asked  # what was fetched to be refused is there
    assert file.name == "en_encoder.onnx"
    assert load_bundle(file).family == "conformer"


@pytest.mark.needs("torch")
def test_a_clone_on_disk(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "icefall-asr-tiny"
    for name, data in clone().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    whole = facts(folder, environ=environ)
    assert (whole["family"], whole["name"]) == ("conformer", "icefall-asr-tiny/exp")
    inside = facts(folder / "exp", environ=environ)
    assert whole.pop("also_there") == {"exp/pretrained.pt": "--engine torch"}
    assert inside.pop("also_there") == {"pretrained.pt": "--engine torch"}
    assert inside == whole
    said = moulin("transcribe", CLIP, "--model", folder, environ=environ).expect(0)
    by_torch = moulin("transcribe", CLIP, "--model", folder, "--engine", "torch", environ=environ).expect(0)
    assert (said.out, said.err) == (by_torch.out, "")
    assert "has ONNX files and a checkpoint; taking exp/pretrained.pt" in by_torch.err
    for link in ((), ("--link",)):
        repository = tmp_path / f"repository{len(link)}"
        moulin("repo", "build", folder, "--to", repository, *link, environ=environ).expect(0)
        assert load_bundle(repository / "transducer" / "1" / "bundle").name == "bundle"
