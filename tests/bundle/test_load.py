"""The seven bundles against the recipes that made them and against their own graphs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec
from moulin.demo.files import DEMO_MODEL
from moulin.errors import BundleError
from tests.bundles import BUNDLES, OFFLINE, STREAMING

from .conftest import CopyBundle
from .damage import edit_onnx, rename_tensors, set_metadata, use_external_data

FAMILIES = {
    "pruned_transducer_stateless3": "conformer",
    "pruned_transducer_stateless5": "conformer",
    "lstm_transducer_stateless2": "lstm",
    "pruned_transducer_stateless7": "zipformer",
    "pruned_transducer_stateless7_streaming": "zipformer",
    "zipformer": "zipformer2",
}


def encoder_session(spec: OnnxModelSpec) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(spec.encoder.file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", [*OFFLINE, *STREAMING])
def test_facts_are_those_of_the_recipe(name: str) -> None:
    recipe = json.loads((BUNDLES / name / "recipe.json").read_text())
    arguments = {key.replace("-", "_"): value for key, value in (recipe["cli"] | recipe["patched_params"]).items()}
    spec = load_bundle(BUNDLES / name)
    assert spec.family == FAMILIES[recipe["recipe"]]
    assert spec.mode == ("offline" if name in OFFLINE else "streaming")
    assert spec.joiner_dim == arguments["joiner_dim"]
    assert spec.vocab_size == len(spec.tokens) == recipe["vocab_size"]
    assert (spec.feature_dim, spec.context_size, spec.precision) == (80, 2, "fp32")
    assert spec.tokens.symbols[:3] == ("<blk>", "<sos/eos>", "<unk>")
    assert spec.name == name
    assert spec.path == BUNDLES / name
    assert spec.encoder_frame_sec == 0.04
    parts = (spec.files.encoder, spec.files.decoder, spec.files.joiner)
    assert spec.size_bytes == sum(file.stat().st_size for file in parts)


@pytest.mark.parametrize(
    ("name", "window_frames", "chunk_frames", "num_states"),
    [
        ("conformer-streaming", 75, 64, 3),
        ("lstm-streaming", 9, 4, 2),
        ("zipformer-streaming", 39, 32, 7 * 3),
        ("zipformer2-streaming", 45, 32, 6 * 4 + 2),
    ],
)
def test_streaming_chunks_and_states(name: str, window_frames: int, chunk_frames: int, num_states: int) -> None:
    spec = load_bundle(BUNDLES / name, expect="streaming")
    assert spec.streaming is not None
    assert (spec.streaming.window_frames, spec.streaming.chunk_frames) == (window_frames, chunk_frames)
    assert spec.streaming.chunk_sec == pytest.approx(chunk_frames / 100)
    assert len(spec.streaming.states) == num_states
    assert spec.streaming.state_bytes == sum(
        math.prod(state.shape) * np.dtype(state.dtype).itemsize for state in spec.streaming.states
    )


@pytest.mark.parametrize("name", STREAMING)
def test_states_are_what_the_graph_takes_and_returns(name: str) -> None:
    """Zeros of the stated shapes go in for a batch of 3, and the new states come out with the same shapes."""
    spec = load_bundle(BUNDLES / name)
    assert spec.streaming is not None
    session = encoder_session(spec)
    assert [tensor.name for tensor in session.get_inputs()] == ["x", *(state.name for state in spec.streaming.states)]
    inputs = {"x": np.zeros((3, spec.streaming.window_frames, spec.feature_dim), np.float32)}
    shapes = []
    for state in spec.streaming.states:
        assert state.shape[state.batch_axis] == 1
        shapes.append([3 if axis == state.batch_axis else size for axis, size in enumerate(state.shape)])
        inputs[state.name] = np.zeros(shapes[-1], state.dtype)
    encoder_out, *new_states = session.run(None, inputs)
    assert encoder_out.shape == (3, spec.streaming.chunk_frames // 4, spec.joiner_dim)
    # The streaming Conformer leaves processed_lens to its caller.
    assert [list(state.shape) for state in new_states] == shapes[: len(new_states)]
    assert len(shapes) - len(new_states) == (spec.family == "conformer")


@pytest.mark.parametrize("name", STREAMING)
def test_batch_axes_are_the_dynamic_ones(name: str) -> None:
    spec = load_bundle(BUNDLES / name)
    assert spec.streaming is not None
    for state, tensor in zip(spec.streaming.states, spec.encoder.inputs[1:], strict=True):
        assert [axis for axis, size in enumerate(tensor.shape) if isinstance(size, str)] == [state.batch_axis]


@pytest.mark.parametrize("name", STREAMING)
def test_an_export_for_one_stream_only_has_the_same_states(name: str, copy_bundle: CopyBundle) -> None:
    """Without dynamic axes the batch is a plain 1, and only the names tell where it is."""
    folder = copy_bundle(name)
    spec = load_bundle(folder)

    def fix_batch(model: object) -> None:
        for tensor in model.graph.input:  # type: ignore[attr-defined]
            for dim in tensor.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_value = 1

    edit_onnx(spec.encoder.file, fix_batch)
    assert load_bundle(folder).streaming == spec.streaming


def test_demo_model() -> None:
    """An int8 encoder with an fp32 decoder and joiner, as many published bundles are."""
    spec = load_bundle(DEMO_MODEL, expect="offline")
    assert (spec.family, spec.mode, spec.precision) == ("zipformer2", "offline", "int8")
    assert (spec.vocab_size, spec.joiner_dim, spec.tokens.kind) == (30, 128, "bpe")
    assert spec.files.encoder.name == "encoder-epoch-1-avg-1.int8.onnx"
    assert spec.files.decoder.name == "decoder-epoch-1-avg-1.onnx"
    assert spec.files.joiner.name == "joiner-epoch-1-avg-1.onnx"
    assert spec.files.bpe_model == DEMO_MODEL / "bpe.model"


def test_a_folder_that_only_says_the_form_is_named_with_its_parent(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    folder.rename(folder.parent / "exp")
    assert load_bundle(folder.parent / "exp").name == f"{folder.parent.name}/exp"


@pytest.mark.parametrize(
    ("name", "expect"),
    [("zipformer-offline", "streaming"), ("lstm-streaming", "offline")],
    ids=["offline", "streaming"],
)
def test_the_other_mode_is_refused(name: str, expect: str) -> None:
    with pytest.raises(BundleError, match=f"Expected an? {expect} model, got the .*{name}") as caught:
        load_bundle(BUNDLES / name, expect=expect)  # type: ignore[arg-type]
    assert f"for {expect} use" in str(caught.value.hint)


# ------------------------------------------------------------------------------- exports that differ, and still load


def test_without_metadata_the_decoder_and_joiner_tell_by_their_shapes(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    spec = load_bundle(folder)
    set_metadata(spec.decoder.file, context_size=None, vocab_size=None)
    set_metadata(spec.joiner.file, joiner_dim=None)
    bare = load_bundle(folder)
    assert not bare.decoder.metadata
    assert (bare.context_size, bare.vocab_size, bare.joiner_dim) == (2, 37, 56)


def test_an_offline_encoder_needs_no_metadata(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer2-offline")
    set_metadata(load_bundle(folder).encoder.file, model_type=None)
    spec = load_bundle(folder, expect="offline")
    assert spec.family == "unknown"


def test_other_tensor_names_go_by_position(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    spec = load_bundle(folder)
    rename_tensors(spec.encoder.file, {"x": "speech", "x_lens": "speech_lengths", "encoder_out": "enc"})
    rename_tensors(spec.decoder.file, {"y": "targets_in", "decoder_out": "dec"})
    rename_tensors(spec.joiner.file, {"encoder_out": "e", "decoder_out": "d", "logit": "scores"})
    renamed = load_bundle(folder, expect="offline")
    assert (renamed.joiner_dim, renamed.vocab_size, renamed.context_size) == (56, 37, 2)


def test_external_weights(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    encoder = load_bundle(folder).encoder.file
    whole = encoder.stat().st_size
    weights = use_external_data(encoder, "encoder.weights")
    spec = load_bundle(folder)
    assert spec.encoder.external_files == (weights,)
    assert spec.encoder.size_bytes == encoder.stat().st_size + weights.stat().st_size > 0.9 * whole


def test_a_hub_cache_of_links(copy_bundle: CopyBundle, tmp_path: Path) -> None:
    """huggingface_hub keeps files as blobs/HASH and makes snapshots/REVISION/NAME a link to them."""
    folder = copy_bundle("conformer-offline")
    use_external_data(load_bundle(folder).encoder.file, "encoder.weights")
    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = tmp_path / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    spec = load_bundle(snapshot)
    assert spec.encoder.external_files == (snapshot / "encoder.weights",)
    encoder_session(spec)
