from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
from moulin.errors import LaunchError, OptionsError
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.engine_choice import EngineChoice
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.triton_repo.shim_args import shim_args

from .sherpa_client import infer, inputs, streaming_text, tensors, texts

CONFORMER = BUNDLES / "conformer-offline"
LSTM = BUNDLES / "lstm-streaming"
FREE_PORTS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_copy_holds_the_chosen_files_and_no_links(tmp_path: Path) -> None:
    source = shutil.copytree(DEMO_MODEL, tmp_path / "model")
    (source / "bpe.model").touch()
    model_dir = build_offline_repository(load_bundle(source), tmp_path / "repository", OfflineOptions())
    chosen = {path.name for path in source.iterdir() if path.name != "MODEL_CARD.md"}
    assert _files(model_dir) == {
        "config.pbtxt",
        "1/model.py",
        "warmup/WAV",
        "warmup/WAV_LENS",
        *(f"1/bundle/{name}" for name in chosen),
    }
    assert not [path for path in model_dir.rglob("*") if path.is_symlink()]
    assert str(source) not in (model_dir / "config.pbtxt").read_text()
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == ["transducer"]


def test_every_file_that_the_config_names_exists(tmp_path: Path) -> None:
    model_dir = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    config = (model_dir / "config.pbtxt").read_text()
    assert ShimParameters.read(shim_args(model_dir), OfflineOptions).encoder.is_file()
    warmup = re.findall(r'input_data_file: "([^"]+)"', config)
    assert sorted(warmup) == ["WAV", "WAV_LENS"]
    assert np.fromfile(model_dir / "warmup" / "WAV", "<f4").size == 32000
    assert np.fromfile(model_dir / "warmup" / "WAV_LENS", "<i4").tolist() == [32000]


def test_a_streaming_model_needs_no_warm_up(tmp_path: Path) -> None:
    model_dir = build_streaming_repository(load_bundle(LSTM), tmp_path, StreamingOptions())
    files = {path.name for path in LSTM.iterdir() if path.suffix in (".onnx", ".txt")}
    assert _files(model_dir) == {"config.pbtxt", "1/model.py", *(f"1/bundle/{name}" for name in files)}
    assert ShimParameters.read(shim_args(model_dir), StreamingOptions).encoder.is_file()
    assert "moulin.triton_repo.streaming_shim" in (model_dir / "1" / "model.py").read_text()


def test_a_model_of_the_other_mode_takes_its_place_or_stands_beside_it(tmp_path: Path) -> None:
    build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    live = StreamingOptions(model_name="transducer_streaming")
    build_streaming_repository(load_bundle(LSTM), tmp_path, live, link=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["transducer", "transducer_streaming"]
    again = build_streaming_repository(load_bundle(LSTM), tmp_path, StreamingOptions())
    assert load_bundle(again / "1" / "bundle").family == "lstm"
    assert not (again / "warmup").exists()
    back = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    assert load_bundle(back / "1" / "bundle").family == "conformer"
    assert (LSTM / "tokens.txt").exists()


def test_link_leaves_the_files_where_they_are(tmp_path: Path) -> None:
    model_dir = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions(), link=True)
    assert (model_dir / "1" / "bundle").readlink() == CONFORMER.resolve()


def test_a_link_does_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFORMER.parent)
    model_dir = build_offline_repository(load_bundle(Path(CONFORMER.name)), tmp_path, OfflineOptions(), link=True)
    monkeypatch.chdir(tmp_path)
    assert (model_dir / "1" / "bundle" / "tokens.txt").is_file()


@pytest.mark.parametrize("link_first", [True, False])
def test_building_again_replaces_that_model_alone(tmp_path: Path, link_first: bool) -> None:
    other = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions(model_name="other"))
    first = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions(), link=link_first)
    (first / "1" / "leftover").touch()
    before = _files(CONFORMER)
    again = build_offline_repository(load_bundle(BUNDLES / "zipformer-offline"), tmp_path, OfflineOptions(max_batch=3))
    assert "max_batch_size: 3" in (again / "config.pbtxt").read_text()
    assert not (again / "1" / "leftover").exists()
    assert load_bundle(again / "1" / "bundle").family == "zipformer"
    assert load_bundle(other / "1" / "bundle").family == "conformer"
    assert _files(CONFORMER) == before, "replacing a linked model touched the files it linked to"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "transducer"]


def test_a_model_may_be_rebuilt_from_itself(tmp_path: Path) -> None:
    model_dir = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    inside = load_bundle(model_dir / "1" / "bundle")
    with pytest.raises(OptionsError, match="lies in the model folder to replace"):
        build_offline_repository(inside, tmp_path, OfflineOptions(), link=True)
    build_offline_repository(inside, tmp_path, OfflineOptions(max_batch=9))
    assert "max_batch_size: 9" in (model_dir / "config.pbtxt").read_text()
    assert load_bundle(model_dir / "1" / "bundle").family == "conformer"


def test_an_interrupted_build_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(OptionsError, match=r"Cannot write the repository to .*: No space left on device"):
        build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    assert load_bundle(model_dir / "1" / "bundle").family == "conformer"
    assert [path.name for path in tmp_path.iterdir()] == ["transducer"]


def test_what_is_not_a_model_is_left_alone(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    foreign = tmp_path / "repository" / "transducer"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").touch()
    with pytest.raises(OptionsError, match="exists and is not a Triton model"):
        build_offline_repository(spec, tmp_path / "repository", OfflineOptions())
    (tmp_path / "file").touch()
    with pytest.raises(OptionsError, match=r"Cannot write the repository to .*file"):
        build_offline_repository(spec, tmp_path / "file", OfflineOptions())
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "transducer").symlink_to(foreign)
    with pytest.raises(OptionsError, match="exists and is not a Triton model"):
        build_offline_repository(spec, linked, OfflineOptions())
    assert (foreign / "thesis.tex").exists()


@pytest.mark.triton
def test_a_copied_repository_needs_nothing_else(tmp_path: Path, snippets: list[tuple[Floats, str]]) -> None:
    """Built, moved, the source deleted; and a limit of the queue that a burst does reach."""
    source = shutil.copytree(CONFORMER, tmp_path / "model")
    options = OfflineOptions(max_queue=2, max_batch=1)
    build_offline_repository(load_bundle(source), tmp_path / "built", options)
    shutil.rmtree(source)
    moved = (tmp_path / "built").rename(tmp_path / "moved")
    waveform, text = snippets[0]
    with TritonServer(moved, FREE_PORTS) as server:
        server.wait_ready()
        with grpc.InferenceServerClient(server.grpc_url) as client:
            assert texts(infer(client, tensors([waveform]))) == [text]
            _assert_a_burst_is_refused(client, np.tile(waveform, 16))
            assert texts(infer(client, tensors([waveform]))) == [text]


def _assert_a_burst_is_refused(client: grpc.InferenceServerClient, waveform: Floats) -> None:
    (text,) = texts(infer(client, tensors([waveform])))
    answers: list[object] = []
    answered = threading.Semaphore(0)

    def keep(result: object, error: object) -> None:
        answers.append(error or result)
        answered.release()

    calls = [client.async_infer("transducer", inputs(tensors([waveform])), keep) for _ in range(50)]
    assert all(answered.acquire(timeout=60) for _ in calls)
    refused = [answer for answer in answers if isinstance(answer, InferenceServerException)]
    assert 0 < len(refused) < 50
    assert {str(error.status()) for error in refused} == {"StatusCode.UNAVAILABLE"}
    assert all("Exceeds maximum queue size" in str(error) for error in refused)
    assert all(texts(answer) == [text] for answer in answers if not isinstance(answer, InferenceServerException))


@pytest.mark.triton
def test_a_copied_streaming_repository_needs_nothing_else(tmp_path: Path, snippets: list[tuple[Floats, str]]) -> None:
    """Two instances: each holds its share of the streams, and a stream always comes to the same one."""
    source = shutil.copytree(LSTM, tmp_path / "model")
    options = StreamingOptions(engine=EngineChoice(threads=2), instances=2, max_streams=4)
    build_streaming_repository(load_bundle(source), tmp_path / "built", options)
    shutil.rmtree(source)
    moved = (tmp_path / "built").rename(tmp_path / "moved")
    with TritonServer(moved, FREE_PORTS) as server:
        server.wait_ready()
        with grpc.InferenceServerClient(server.grpc_url) as client:
            waveforms = [waveform for waveform, _ in snippets[:4]]
            whole = [
                streaming_text(infer(client, tensors([w]), sequence_id=9, sequence_start=True, sequence_end=True))
                for w in waveforms
            ]
            assert len(set(whole)) == 4
            for start in range(0, 8000, 2000):
                pieced = [
                    streaming_text(
                        infer(
                            client,
                            tensors([waveform[start : start + 2000]]),
                            sequence_id=number,
                            sequence_start=start == 0,
                            sequence_end=start == 6000,
                        )
                    )
                    for number, waveform in enumerate(waveforms, 1)
                ]
                if start == 0:
                    with pytest.raises(InferenceServerException, match="streams are in use"):
                        infer(client, tensors(waveforms[:1]), sequence_id=5, sequence_start=True, sequence_end=True)
            assert pieced == whole


@pytest.mark.triton
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("tokens", r"model 'transducer': .*tokens\.txt"),
        ("encoder", r"model 'transducer': .*encoder-epoch-1-avg-1\.onnx"),
        ("streaming", r"model 'transducer': .*Expected an offline model, got the streaming lstm"),
    ],
)
def test_a_model_that_cannot_load_says_why(tmp_path: Path, damage: str, reason: str) -> None:
    model_dir = build_offline_repository(load_bundle(CONFORMER), tmp_path, OfflineOptions())
    bundle = model_dir / "1" / "bundle"
    if damage == "tokens":
        (bundle / "tokens.txt").write_text("<blk> 0\nnot a token line\n")
    elif damage == "encoder":
        (bundle / "encoder-epoch-1-avg-1.onnx").write_bytes(b"not a model")
    else:
        shutil.rmtree(bundle)
        shutil.copytree(BUNDLES / "lstm-streaming", bundle)
    _assert_does_not_load(tmp_path, reason)


@pytest.mark.triton
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("decoder", r"model 'transducer': .*decoder-epoch-1-avg-1\.onnx"),
        ("offline", r"model 'transducer': .*Expected a streaming model, got the offline conformer"),
        ("options", r"model 'transducer': .*There is no .*option 'bean'"),
    ],
)
def test_a_streaming_model_that_cannot_load_says_why(tmp_path: Path, damage: str, reason: str) -> None:
    model_dir = build_streaming_repository(load_bundle(LSTM), tmp_path, StreamingOptions())
    bundle, config = model_dir / "1" / "bundle", model_dir / "config.pbtxt"
    if damage == "decoder":
        (bundle / "decoder-epoch-1-avg-1.onnx").write_bytes(b"not a model")
    elif damage == "offline":
        shutil.rmtree(bundle)
        shutil.copytree(CONFORMER, bundle)
    else:
        config.write_text(config.read_text().replace(r"\"beam\"", r"\"bean\""))
    _assert_does_not_load(tmp_path, reason)


def _assert_does_not_load(repository: Path, reason: str) -> None:
    with TritonServer(repository, FREE_PORTS) as server, pytest.raises(LaunchError, match=reason) as caught:
        server.wait_ready()
    assert "\n" not in caught.value.message
    assert "Traceback" not in str(caught.value)
