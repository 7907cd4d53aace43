"""States of a streaming encoder from chunk to chunk, and exports that do not describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.spec import StreamingSpec
from moulin.errors import BundleError
from tests.bundles import BUNDLES, STREAMING

from .conftest import CopyBundle
from .damage import edit_onnx, rename_tensors, set_metadata


def streaming_of(folder: Path) -> StreamingSpec:
    streaming = load_bundle(folder, expect="streaming").streaming
    assert streaming is not None
    return streaming


def encoder_of(folder: Path) -> Path:
    return next(folder.glob("encoder*.onnx"))


def refused(folder: Path, match: str) -> BundleError:
    with pytest.raises(BundleError, match=match) as caught:
        load_bundle(folder)
    assert str(encoder_of(folder)) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", STREAMING)
def test_every_state_has_its_output_or_an_increment(name: str) -> None:
    streaming = streaming_of(BUNDLES / name)
    for state in streaming.states:
        if name == "conformer-streaming" and state.name == "processed_lens":
            assert (state.output, state.increment) == (None, 16)
        else:
            assert (state.output, state.increment) == (f"new_{state.name}", 0)


def test_the_conformers_counter_goes_by_its_chunk() -> None:
    """In encoder frames, a quarter of the features: what its own metadata calls `chunk_size`."""
    spec = load_bundle(BUNDLES / "conformer-streaming")
    assert spec.streaming is not None
    [counter] = [state for state in spec.streaming.states if state.output is None]
    assert counter.increment == int(spec.encoder.metadata["chunk_size"]) == spec.streaming.chunk_frames // 4
    assert (counter.dtype, counter.shape, counter.batch_axis) == ("int64", (1,), 0)


def test_zipformer2_returns_its_counter_itself() -> None:
    [counter] = [s for s in streaming_of(BUNDLES / "zipformer2-streaming").states if s.name == "processed_lens"]
    assert (counter.output, counter.increment) == ("new_processed_lens", 0)


# ---------------------------------------------------------------------------------------------------- names of outputs


@pytest.mark.parametrize("name", STREAMING)
def test_outputs_with_other_names_go_by_their_order(name: str, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle(name)
    spec = load_bundle(folder)
    outputs = [tensor.name for tensor in spec.encoder.outputs if tensor.name != "encoder_out"]
    rename_tensors(encoder_of(folder), {output: f"next_{number}" for number, output in enumerate(outputs)})
    wanted = {state: f"next_{number}" for number, state in enumerate(output[4:] for output in outputs)}
    for state in streaming_of(folder).states:
        assert state.output == wanted.get(state.name)
        assert (state.output is None) == (state.increment > 0)


def test_outputs_in_another_order_go_by_their_names(copy_bundle: CopyBundle) -> None:
    """Two states of the same shape, say, that the graph returns the other way round."""
    folder = copy_bundle("zipformer2-streaming")

    def reverse(model: Any) -> None:
        outputs = list(model.graph.output)
        del model.graph.output[:]
        model.graph.output.extend(reversed(outputs))

    edit_onnx(encoder_of(folder), reverse)
    assert streaming_of(folder) == streaming_of(BUNDLES / "zipformer2-streaming")


def test_encoder_out_under_another_name_is_the_first_output(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    rename_tensors(encoder_of(folder), {"encoder_out": "speech"})
    assert streaming_of(folder) == streaming_of(BUNDLES / "lstm-streaming")


# ------------------------------------------------------------------------------------------------------ damaged exports


@pytest.mark.parametrize(
    ("name", "states"),
    [("conformer-streaming", 2), ("lstm-streaming", 2), ("zipformer-streaming", 21), ("zipformer2-streaming", 26)],
)
def test_an_encoder_that_returns_too_few_states(name: str, states: int, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle(name)
    edit_onnx(encoder_of(folder), lambda model: model.graph.output.pop())
    refused(folder, rf"to return {states} states, got {states - 1} outputs besides encoder_out")


def test_an_encoder_that_returns_too_many_states(copy_bundle: CopyBundle) -> None:
    """As an offline-style export that also returns lengths would."""
    folder = copy_bundle("lstm-streaming")

    def add(model: Any) -> None:
        extra = model.graph.output.add()
        extra.CopyFrom(model.graph.output[1])
        extra.name = "encoder_out_lens"

    edit_onnx(encoder_of(folder), add)
    refused(folder, "to return 2 states, got 3 outputs besides encoder_out")


def test_a_conformer_that_returns_its_counter_is_not_the_one_we_know(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-streaming")

    def add(model: Any) -> None:
        extra = model.graph.output.add()
        extra.CopyFrom(next(value for value in model.graph.input if value.name == "processed_lens"))
        extra.name = "new_processed_lens"

    edit_onnx(encoder_of(folder), add)
    refused(folder, "to return 2 states, got 3 outputs besides encoder_out")


@pytest.mark.parametrize("chunk", [10, 46, 1000])
def test_a_chunk_longer_than_its_window(chunk: int, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    set_metadata(encoder_of(folder), decode_chunk_len=str(chunk))
    refused(folder, f"'decode_chunk_len' of .* to be 1 to T, which is 9, got {chunk}")


def test_a_chunk_as_long_as_its_window(copy_bundle: CopyBundle) -> None:
    """A model that looks ahead of nothing."""
    folder = copy_bundle("lstm-streaming")
    set_metadata(encoder_of(folder), decode_chunk_len="9")
    assert streaming_of(folder).chunk_frames == streaming_of(folder).window_frames == 9


def test_without_t_in_the_metadata_the_input_tells_it(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer-streaming")
    set_metadata(encoder_of(folder), T=None)
    assert streaming_of(folder) == streaming_of(BUNDLES / "zipformer-streaming")


@pytest.mark.parametrize(
    ("value", "match"), [("many", "Expected a number as 'T'"), ("0", "Expected 'T' of .* positive")]
)
def test_a_window_that_makes_no_sense(value: str, match: str, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer-streaming")
    set_metadata(encoder_of(folder), T=value)
    refused(folder, match)


def test_a_window_of_another_length_than_the_input(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("zipformer-streaming")
    set_metadata(encoder_of(folder), T="45")
    refused(folder, "Expected x of .* to have 45 frames, its 'T', got 39")


def test_a_state_with_two_dynamic_axes(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")

    def forget(model: Any) -> None:
        state = next(value for value in model.graph.input if value.name == "state1")
        state.type.tensor_type.shape.dim[2].dim_param = "D"

    edit_onnx(encoder_of(folder), forget)
    refused(folder, "Expected only the batch axis of 'state1' in .* to be dynamic")


def test_a_state_of_lower_rank_than_its_batch_axis(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")

    def flatten(model: Any) -> None:
        state = next(value for value in model.graph.input if value.name == "state0")
        del state.type.tensor_type.shape.dim[1:]

    edit_onnx(encoder_of(folder), flatten)
    refused(folder, r"has a state 'state0' \[2\] that no lstm has")


def test_another_family_in_the_metadata(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")
    set_metadata(encoder_of(folder), model_type="zipformer2")
    refused(folder, r"has a state 'state0' .* that no zipformer2 has")
