"""huggingface_hub against a small hub on this machine."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import pytest

from moulin.bundle.choice import Wish
from moulin.bundle.load import load_bundle
from moulin.bundle.precision import Precision
from moulin.fetch.errors import FetchError, Unreachable
from moulin.fetch.hub import HubModel, fetch_from_hub
from tests.bundles import BUNDLES

from .site import COMMIT, REPOSITORY, Site, files_of, publish

TINY = BUNDLES / "lstm-streaming"
ENCODER = "encoder-epoch-1-avg-1.onnx"
MODEL = HubModel(REPOSITORY)
PINNED = HubModel(REPOSITORY, COMMIT)
ENCODER_PATH = f"/{REPOSITORY}/resolve/{COMMIT}/{ENCODER}"
NEEDED = {"tokens.txt", ENCODER, "decoder-epoch-1-avg-1.onnx", "joiner-epoch-1-avg-1.onnx"}


@pytest.fixture
def published(hub: Site) -> Site:
    publish(hub, {**files_of(TINY), "README.md": b"---\nlicense: apache-2.0\n---\n", "test_wavs/0.wav": b"RIFF"})
    return hub


def test_only_what_is_needed_comes_and_loads(published: Site, tmp_path: Path) -> None:
    seen = set()

    def see(name: str, _done: int, _total: int | None) -> None:
        seen.add(name)

    fetched = fetch_from_hub(MODEL, tmp_path, progress=see)
    assert {Path(path).name for path in published.asked("/resolve/")} == NEEDED == seen
    assert files_of(fetched.folder) == {name: (TINY / name).read_bytes() for name in NEEDED}
    assert fetched.received_bytes == sum((TINY / name).stat().st_size for name in NEEDED)
    spec = load_bundle(fetched.folder, expect="streaming")
    assert spec.name == "tiny-lstm"


def test_the_second_time_nothing_comes(published: Site, tmp_path: Path) -> None:
    first = fetch_from_hub(MODEL, tmp_path)
    published.requests.clear()
    again = fetch_from_hub(MODEL, tmp_path)
    assert (again.folder, again.received_bytes) == (first.folder, 0)
    assert published.asked() == [f"/api/models/{REPOSITORY}/revision/main"]
    published.requests.clear()
    assert fetch_from_hub(PINNED, tmp_path) == again
    assert published.asked() == []


def test_an_interrupted_fetch_goes_on(published: Site, tmp_path: Path) -> None:
    published.breaks[ENCODER_PATH] = [100_000, 0]
    with pytest.raises(FetchError, match=f"of {ENCODER}, got 100,000 before"):
        fetch_from_hub(MODEL, tmp_path)
    assert not [folder for folder in tmp_path.rglob("tiny-lstm") if (folder / "tokens.txt").exists()]
    before = list(published.requests)
    fetched = fetch_from_hub(MODEL, tmp_path)
    asked = [request for request in published.requests[len(before) :] if "/resolve/" in request.path]
    assert [(request.path, request.range) for request in asked] == [(ENCODER_PATH, "bytes=100000-")]
    assert (fetched.folder / ENCODER).read_bytes() == (TINY / ENCODER).read_bytes()


@pytest.mark.parametrize("name", [ENCODER, "tokens.txt"])
def test_a_wrong_checksum(published: Site, tmp_path: Path, name: str) -> None:
    path = f"/{REPOSITORY}/resolve/{COMMIT}/{name}"
    right = published.files[path]
    published.files[path] = right[:-1] + b"?"
    with pytest.raises(FetchError, match=f"Expected {name} to have the checksum"):
        fetch_from_hub(MODEL, tmp_path)
    published.files[path] = right
    load_bundle(fetch_from_hub(MODEL, tmp_path).folder)


def test_a_new_commit_comes_and_the_old_one_stays(published: Site, tmp_path: Path) -> None:
    first = fetch_from_hub(MODEL, tmp_path)
    publish(published, files_of(BUNDLES / "conformer-offline"), commit="f" * 40)
    second = fetch_from_hub(MODEL, tmp_path)
    assert load_bundle(second.folder).mode == "offline"
    assert load_bundle(fetch_from_hub(PINNED, tmp_path).folder).mode == "streaming"
    assert first.folder != second.folder


def test_variants_are_folders_of_their_own(hub: Site, tmp_path: Path) -> None:
    publish(hub, files_of(BUNDLES / "zipformer2-offline"))
    precisions: tuple[Precision, ...] = ("int8", "fp32")
    for precision in precisions:
        folder = fetch_from_hub(MODEL, tmp_path, wish=Wish(precision)).folder
        assert load_bundle(folder).precision == precision
        assert len(list(folder.iterdir())) == 4


def test_icefalls_layout_becomes_flat(hub: Site, tmp_path: Path) -> None:
    files = files_of(TINY)
    publish(
        hub,
        {f"data/lang_char/{name}" if name == "tokens.txt" else f"exp/{name}": files[name] for name in files},
    )
    assert load_bundle(fetch_from_hub(MODEL, tmp_path).folder).family == "lstm"


def test_a_checkpoint_where_there_is_no_onnx(hub: Site, tmp_path: Path) -> None:
    publish(hub, {"exp/pretrained.pt": b"PK", "exp/epoch-1.pt": b"PK", "data/lang_bpe_500/tokens.txt": b"<blk> 0\n"})
    assert files_of(fetch_from_hub(MODEL, tmp_path).folder) == {"pretrained.pt": b"PK", "tokens.txt": b"<blk> 0\n"}


@pytest.mark.usefixtures("published")
def test_without_the_hub_what_was_fetched_before_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = fetch_from_hub(MODEL, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    later = fetch_from_hub(MODEL, tmp_path)
    assert (later.folder, later.reached) == (fetched.folder, False)
    with pytest.raises(Unreachable, match=r"Cannot reach http://127.0.0.1:9: "):
        fetch_from_hub(HubModel("somebody/else"), tmp_path)


def test_offline_is_respected(published: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.breaks[ENCODER_PATH] = [0]
    with pytest.raises(FetchError):
        fetch_from_hub(PINNED, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    published.requests.clear()
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set"):
        fetch_from_hub(PINNED, tmp_path)
    assert not published.requests


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "There is no model somebody/tiny-lstm on .*set HF_TOKEN"),
        (401, "", "There is no model somebody/tiny-lstm on .*set HF_TOKEN"),
        (404, "RevisionNotFound", "somebody/tiny-lstm has no revision 'main'"),
        (403, "GatedRepo", "only for those who accepted its conditions .*accept them on http://127.*/somebody/tiny"),
        (500, "", "does not say what is in hf://somebody/tiny-lstm"),
    ],
)
def test_refusals(published: Site, tmp_path: Path, status: int, code: str, message: str) -> None:
    published.statuses[f"/api/models/{REPOSITORY}/revision/main"] = status
    published.error_headers = {"X-Error-Code": code} if code else {}
    with pytest.raises(FetchError, match=message):
        fetch_from_hub(MODEL, tmp_path)


def test_a_gated_model_whose_files_can_be_listed(published: Site, tmp_path: Path) -> None:
    published.statuses[ENCODER_PATH] = 403
    with pytest.raises(FetchError, match=f"does not give {ENCODER} to everybody .*accept .* conditions"):
        fetch_from_hub(MODEL, tmp_path)


def test_the_token_goes_along(published: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch_from_hub(MODEL, tmp_path)
    assert {request.token for request in published.requests} == {"Bearer hf_secret"}


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FetchError, match=r"it is not installed \(hint: pip install '.\[hub\]' in moulin's folder\)"):
        fetch_from_hub(MODEL, tmp_path)


CHECKPOINT = "exp/pretrained-epoch-30-avg-9.pt"


def linked(hub: Site, target: str) -> HubModel:
    """A repository whose CHECKPOINT is a symbolic link, as git keeps it; `exp/pretrained.pt` is a checkpoint."""
    checkpoint = (TINY / "epoch-1.pt").read_bytes()
    files = {"exp/pretrained.pt": checkpoint, CHECKPOINT: target.encode(), "tokens.txt": b"<blk> 0\n"}
    publish(hub, files)
    return HubModel(REPOSITORY, inside=PurePosixPath(CHECKPOINT))


@pytest.mark.parametrize("target", ["pretrained.pt", "./pretrained.pt\n", "../exp/pretrained.pt"])
def test_a_link_that_is_named_is_followed(hub: Site, tmp_path: Path, target: str) -> None:
    fetched = fetch_from_hub(linked(hub, target), tmp_path)
    assert {file.name for file in fetched.folder.iterdir()} == {"pretrained.pt", "tokens.txt"}


@pytest.mark.parametrize("target", ["gone.pt", "../../../etc/passwd", "/etc/passwd", "", "\udcff", CHECKPOINT[4:]])
def test_a_link_that_leads_nowhere(hub: Site, tmp_path: Path, target: str) -> None:
    model = linked(hub, "x")
    hub.files.clear()
    publish(
        hub,
        {
            "exp/pretrained.pt": b"0" * 5000,
            CHECKPOINT: target.encode("utf-8", "surrogateescape"),
            "tokens.txt": b"<blk> 0\n",
        },
    )
    with pytest.raises(FetchError, match=f"is a link to|There is no {CHECKPOINT}"):
        fetch_from_hub(model, tmp_path)
