"""A checkpoint with a CTC head beside the transducer: its export keeps the head, as one more output of the encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sherpa_onnx
import torch

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.transducer import load_transducer
from moulin.errors import BundleError
from moulin.tensorrt_engine.build import prepare
from tests.bundles import BUNDLES
from tests.cli.command import moulin_here
from tests.icefall import assert_equal, run, session, speech

OFFLINE, STREAMING = BUNDLES / "zipformer2-ctc-offline", BUNDLES / "zipformer2-ctc-streaming"
LABEL = "-epoch-1-avg-1"
CHUNK = f"{LABEL}-chunk-16-left-64"


@dataclass(frozen=True)
class Exports:
    offline: Path
    streaming: Path


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """By the command that a person uses, which compares the files with the checkpoint, the head too."""
    to = tmp_path_factory.mktemp("exports")
    done = moulin_here(
        "export", OFFLINE / "epoch-1.pt", "--to", to / "offline", "--safetensors", "--fp16", "--int8"
    ).expect(0)
    assert "encoder: largest error" in done.err
    moulin_here(
        *("export", STREAMING / "epoch-1.pt", "--to", to / "streaming", "--streaming"),
        *("--chunk-size", 16, "--left-context-frames", 64),
    ).expect(0)
    return Exports(to / "offline", to / "streaming")


def outputs(file: Path) -> list[str]:
    return [tensor.name for tensor in onnx.load(file).graph.output]


def test_the_head_is_one_more_output_behind_icefalls(exports: Exports) -> None:
    for ours, theirs, label in ((exports.offline, OFFLINE, LABEL), (exports.streaming, STREAMING, CHUNK)):
        file = f"encoder{label}.onnx"
        assert outputs(ours / file) == [*outputs(theirs / file), "ctc_log_probs"]
        assert len(list(ours.glob("encoder*.onnx"))) == len(list(ours.glob("decoder*.onnx")))
        # One encoder: the head adds its own parameters alone.
        head = 4 * 47 * (64 + 1)
        assert (ours / file).stat().st_size < (theirs / file).stat().st_size + head + 20_000


def test_its_log_probabilities_are_those_of_icefalls_ctc_export(exports: Exports) -> None:
    features = speech()[None, :400]
    lengths = np.array([400])
    theirs, _ = run(session(OFFLINE / "model.onnx"), features, lengths)
    encoder_out, _, log_probs = run(session(exports.offline / f"encoder{LABEL}.onnx"), features, lengths)
    assert_equal(log_probs, theirs)
    assert_equal(encoder_out, run(session(OFFLINE / f"encoder{LABEL}.onnx"), features, lengths)[0])


def test_its_log_probabilities_are_icefalls_in_streaming_too(exports: Exports) -> None:
    ours, theirs = session(exports.streaming / f"encoder{CHUNK}.onnx"), session(STREAMING / f"ctc{CHUNK}.onnx")
    states: list[Any] = [
        np.zeros([size if isinstance(size, int) else 1 for size in value.shape], "q" if "int64" in value.type else "f")
        for value in theirs.get_inputs()[1:]
    ]
    our_states = states
    for chunk in range(6):
        window = speech()[None, 32 * chunk :][:, :45]
        log_probs, *states = run(theirs, window, *states)
        _, *our_states, ours_found = run(ours, window, *our_states)
        assert_equal(ours_found, log_probs)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_inspect_says_what_heads_there_are(exports: Exports, precision: str) -> None:
    done = moulin_here("inspect", exports.offline, "--precision", precision, "--json").expect(0)
    assert json.loads(done.out)["heads"] == ["transducer", "ctc"]


def test_inspect_of_checkpoints_and_of_icefalls_exports(exports: Exports) -> None:
    for model, heads in (
        (OFFLINE / "epoch-1.pt", ["transducer", "ctc"]),
        (exports.offline / "model.safetensors", ["transducer", "ctc"]),
        (exports.streaming, ["transducer", "ctc"]),
        (BUNDLES / "zipformer2-offline" / "epoch-1.pt", ["transducer"]),
        (BUNDLES / "zipformer2-offline", ["transducer"]),
    ):
        assert json.loads(moulin_here("inspect", model, "--json").expect(0).out)["heads"] == heads, model


def test_the_stored_form_keeps_the_head(exports: Exports) -> None:
    ours = load_transducer([exports.offline / "model.safetensors"]).ctc
    theirs = load_transducer([OFFLINE / "epoch-1.pt"]).ctc
    assert ours is not None
    assert theirs is not None
    stored, trained = ours.state_dict(), theirs.state_dict()
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[name], trained[name]) for name in trained)


def test_a_model_without_the_head_is_exported_as_before(tmp_path: Path) -> None:
    moulin_here("export", BUNDLES / "zipformer2-offline" / "epoch-1.pt", "--to", tmp_path).expect(0)
    assert outputs(tmp_path / f"encoder{LABEL}.onnx") == ["encoder_out", "encoder_out_lens"]
    spec = load_bundle(tmp_path)
    assert (spec.has_ctc_head, spec.ctc_output) == (False, None)


def test_sherpa_onnx_loads_both_forms(exports: Exports) -> None:
    """It takes outputs by position; of icefall's own files and ours it hears the same."""
    noise = 0.1 * np.random.default_rng(3).standard_normal(40_000, dtype=np.float32)
    heard = []
    for folder in (OFFLINE, exports.offline):
        offline = sherpa_onnx.OfflineRecognizer.from_transducer(**files(folder, LABEL), num_threads=1)
        stream = offline.create_stream()
        stream.accept_waveform(16_000, noise)
        offline.decode_stream(stream)
        heard.append((stream.result.tokens, stream.result.timestamps))
    assert heard[0] == heard[1]
    live = []
    for folder in (STREAMING, exports.streaming):
        online = sherpa_onnx.OnlineRecognizer.from_transducer(**files(folder, CHUNK), num_threads=1)
        streams = [online.create_stream(), online.create_stream()]
        for stream in streams:
            stream.accept_waveform(16_000, noise)
            stream.input_finished()
        while online.is_ready(streams[0]):
            online.decode_streams(streams)
        live.append([(online.tokens(stream), online.timestamps(stream)) for stream in streams])
    assert live[0] == live[1]


def test_an_engine_has_what_the_search_of_the_head_reads(exports: Exports) -> None:
    """Of the head beside a transducer the blank alone; where the head is decoded nothing for a joiner."""
    icefalls = {OFFLINE: OFFLINE / f"encoder{LABEL}.onnx", STREAMING: STREAMING / f"encoder{CHUNK}.onnx"}
    for folder, head, outputs in (
        (exports.offline, "transducer", ["encoder_out", "encoder_out_lens", "blank_log_probs"]),
        (exports.offline, "ctc", ["encoder_out_lens", "ctc_log_probs"]),
        (exports.streaming, "transducer", ["encoder_out", "blank_log_probs", "new_states"]),
        (exports.streaming, "ctc", ["ctc_log_probs", "new_states"]),
        (icefalls[OFFLINE], "transducer", ["encoder_out", "encoder_out_lens"]),
        (icefalls[STREAMING], "transducer", ["encoder_out", "new_states"]),
        (OFFLINE, "ctc", ["log_probs", "log_probs_len"]),
        (STREAMING, "ctc", ["log_probs", "new_states"]),
    ):
        spec = load_model(folder, precision="fp32", head="ctc" if head == "ctc" else "transducer")
        model = prepare(spec, max_batch=4, max_seconds=10.0).model
        assert [tensor.name for tensor in model.graph.output] == outputs
        onnx.checker.check_model(model)
        read = [name for node in model.graph.node for name in node.input]
        assert any("encoder_proj" in name for name in read) == (head == "transducer")


def files(folder: Path, label: str) -> dict[str, str]:
    networks = {part: str(folder / f"{part}{label}.onnx") for part in ("encoder", "decoder", "joiner")}
    return {**networks, "tokens": str(folder / "tokens.txt")}


def test_the_recipe_with_a_convolution_behind_the_encoder_is_refused_by_name(tmp_path: Path) -> None:
    content = torch.load(OFFLINE / "epoch-1.pt", weights_only=True)
    content["model"]["lconv.conv.0.weight"] = torch.zeros(64, 1, 7)
    torch.save(content, tmp_path / "epoch-1.pt")
    with pytest.raises(BundleError, match=r"lconv\..*stateless7_ctc_bs.*does not support"):
        load_transducer([tmp_path / "epoch-1.pt"])


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    content = torch.load(OFFLINE / "epoch-1.pt", weights_only=True)
    whole = dict(content["model"])
    for name, tensor, message in (
        ("weight", torch.zeros(46, 64), r"'ctc_output.1.bias' to have the shape \[46\], got \[47\]"),
        ("weight", torch.zeros(47, 63), "CTC head's channels to be 64 as the encoder's, got 63"),
        ("bias", torch.zeros(3), r"'ctc_output.1.bias'"),
    ):
        content["model"] = whole | {f"ctc_output.1.{name}": tensor}
        torch.save(content, tmp_path / "epoch-1.pt")
        with pytest.raises(BundleError, match=message):
            load_transducer([tmp_path / "epoch-1.pt"])
