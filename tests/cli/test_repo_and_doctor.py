from __future__ import annotations

import socket
from pathlib import Path

import pytest

from moulin.bundle.load_model import load_model
from moulin.decoding.options import DecodingOptions
from moulin.demo.files import DEMO_MODEL
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.triton_repo.shim_args import shim_args

from .command import moulin, moulin_here


def test_a_repository_is_built(tmp_path: Path) -> None:
    to = tmp_path / "deep" / "repository"
    done = moulin(
        "repo", "build", DEMO_MODEL, "--to", to, "--name", "digits", "--method", "modified_beam_search"
    ).expect(0)
    assert done.out == ""
    assert done.err.startswith(
        f"Wrote {to / 'digits'} (zipformer2, offline, int8)\n\nServe it:\n  moulin serve --repository {to}\n"
    )
    config = (to / "digits" / "config.pbtxt").read_text()
    assert 'name: "digits"' in config
    told = ShimParameters.read(shim_args(to / "digits"), OfflineOptions).options
    assert told.decoding == DecodingOptions("modified_beam_search")
    assert not (to / "digits" / "1" / "bundle").is_symlink()
    moulin("repo", "build", BUNDLES / "conformer-offline", "--to", to, "--link").expect(0)
    assert (to / "transducer" / "1" / "bundle").is_symlink()
    assert sorted(path.name for path in to.iterdir()) == ["digits", "transducer"]


def test_a_repository_for_a_backend_that_the_triton_from_pip_has_not_says_where_it_runs(tmp_path: Path) -> None:
    build = ["repo", "build", BUNDLES / "conformer-offline", "--to", tmp_path, "--layout", "ensemble"]
    done = moulin(*build, "--backend", "onnxruntime").expect(0)
    assert "Serve it where Triton has its own onnxruntime backend" in done.err
    assert f"  tritonserver --model-repository={tmp_path} --disable-auto-complete-config" in done.err
    assert "moulin serve" not in done.err


def test_both_kinds_in_one_repository(tmp_path: Path) -> None:
    both = [BUNDLES / "zipformer2-streaming", BUNDLES / "zipformer2-offline"]
    done = moulin("repo", "build", *both, "--to", tmp_path, "--max-streams", "7", "--no-endpoint").expect(0)
    said = [line for line in done.err.splitlines() if "writing it for any length" not in line]
    assert said[:2] == [
        f"Wrote {tmp_path}/transducer (zipformer2, offline, fp32)",
        f"Wrote {tmp_path}/transducer_streaming (zipformer2, streaming, fp32)",
    ]
    assert "sequence_batching" in (tmp_path / "transducer_streaming" / "config.pbtxt").read_text()
    told = ShimParameters.read(shim_args(tmp_path / "transducer_streaming"), StreamingOptions).options
    assert (told.max_streams, told.stream.endpoint) == (7, False)
    moulin("repo", "build", both[0], "--streaming", "--to", tmp_path / "alone").expect(0)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["transducer"]


def test_options_of_the_engine_reach_both_models(tmp_path: Path) -> None:
    both = [BUNDLES / "lstm-streaming", BUNDLES / "conformer-offline"]
    moulin("repo", "build", *both, "--to", tmp_path, "--linger-ms", 40, "--no-cuda-graphs").expect(0)
    offline = ShimParameters.read(shim_args(tmp_path / "transducer"), OfflineOptions).options
    live = ShimParameters.read(shim_args(tmp_path / "transducer_streaming"), StreamingOptions).options
    assert (offline.engine.cuda_graphs, live.engine.cuda_graphs) == (False, False)
    assert live.linger_ms == 40


def test_the_layout_ensemble(tmp_path: Path) -> None:
    models = [DEMO_MODEL, BUNDLES / "lstm-streaming"]
    done = moulin(
        "repo", "build", *models, "--to", tmp_path, "--layout", "ensemble", "--backend", "onnxruntime"
    ).expect(0)
    assert done.err.splitlines()[:2] == [
        f"Wrote {tmp_path / 'transducer'} (zipformer2, offline, int8)",
        f"Wrote {tmp_path / 'transducer_streaming'} (lstm, streaming, fp32)",
    ]
    parts = {"feature_extractor", "encoder", "decoder", "joiner", "scorer"}
    live = {f"transducer_streaming{part}" for part in ("", "_encoder", "_decoder", "_joiner")}
    assert {path.name for path in tmp_path.iterdir()} == {"transducer", *parts, *live}
    assert 'backend: "onnxruntime"' in (tmp_path / "encoder" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DEMO_MODEL, "--linger-ms", "-1"], "Expected linger-ms of at least 0 and below 1e6, got -1"),
        ([DEMO_MODEL, "--backend", "onnxruntime"], "--backend is for --layout ensemble"),
        pytest.param(
            [BUNDLES / "zipformer-offline" / "epoch-1.pt", "--layout", "ensemble"],
            "The layout ensemble takes ONNX files, and ",
            marks=pytest.mark.needs("torch"),
        ),
        (
            [BUNDLES / "conformer-offline", "--layout", "ensemble", "--backend", "tensorrt"],
            "Expected a GPU cuda, ",
        ),
        ([BUNDLES / "zipformer-streaming", "--offline"], "Expected offline models, got the streaming zipformer in"),
        ([BUNDLES / "zipformer-offline", "--streaming"], "Expected streaming models, got the offline zipformer in"),
        (["/no/such"], "There is no model at /no/such"),
        (
            [DEMO_MODEL, "--device", "cuda:x"],
            "Expected a device of cpu, cuda or cuda:N, a list such as cuda:0,cuda:1, ",
        ),
        ([DEMO_MODEL, "--name", "../up"], "Expected a model name of letters"),
        ([DEMO_MODEL, "--instances", "0"], "Expected instances of 1 to 1024, got 0"),
        ([DEMO_MODEL, "--to", "/dev/null/x"], "Cannot write the repository to /dev/null/x"),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, arguments: list[object], message: str) -> None:
    done = moulin_here("repo", "build", "--to", tmp_path / "repository", *arguments).expect(1)
    said = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert said[0].startswith(f"moulin: {message}")
    assert done.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.needs("torch")
def test_what_a_checkpoint_does_not_tell_is_kept_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy that the server reads in a process of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = BUNDLES / "conformer-streaming-right2" / "epoch-1.pt"
    sizes = ["--streaming", "--right-context", 2, "--chunk-size", 8, "--left-context-frames", 32]
    done = moulin_here("repo", "build", checkpoint, "--to", tmp_path / "repository", *sizes).expect(0)
    assert "warning" not in done.err
    [stored] = (tmp_path / "repository").rglob("model.safetensors")
    spec = load_model(stored, expect="streaming")
    assert spec.streaming is not None
    assert (spec.streaming.window_frames, spec.streaming.chunk_frames) == (4 * (8 + 2 + 2) + 3, 32)
    assert spec.streaming.states[0].shape == (1, 3, 32, 48)
    bare = moulin_here("repo", "build", checkpoint, "--to", tmp_path / "bare").expect(0)
    assert [line for line in bare.err.splitlines() if line.startswith("warning: ") and "--causal" in line]
    refused = moulin_here("repo", "build", checkpoint.parent, "--to", tmp_path / "onnx", "--num-heads", 4).expect(1)
    assert "--num-heads: for what a checkpoint does not tell, and" in refused.err


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "transducer").mkdir()
    (tmp_path / "transducer" / "mine").touch()
    done = moulin("repo", "build", DEMO_MODEL, "--to", tmp_path).expect(1)
    assert "exists and is not a Triton model" in done.err
    assert (tmp_path / "transducer" / "mine").exists()


def test_doctor_finds_this_machine_well() -> None:
    done = moulin("doctor", "--http-port", 0, "--grpc-port", 0, "--metrics-port", 0, "--gateway-port", 0).expect(0)
    for name in ("Python", "tritonserver", "python stub", "onnxruntime", "shared memory"):
        assert any(line.startswith("ok ") and name in line for line in done.out.splitlines()), name
    assert done.err == "\nReady to serve.\n"


def test_doctor_names_what_is_missing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = moulin("doctor", "--http-port", port, "--grpc-port", 0, "--metrics-port", 0, "--gateway-port", 0)
    assert any(line.startswith("missing") and f"port {port}" in line for line in done.out.splitlines())
    assert "hint: " in done.out
    assert done.expect(1).err == f"\nNot ready to serve: port {port}\n"
