from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import Fbank
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec, StreamingSpec
from moulin.engine.limits import MAX_STREAMS
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.stepper import StepLimits
from moulin.errors import BundleError, EngineError, OptionsError
from tests.bundle.damage import edit_onnx, rename_tensors
from tests.bundles import BUNDLES, STREAMING
from tests.streaming.plain_encoder import PlainEncoder, plain_session

CAPACITY = 6
CHUNKS = 4


def streaming_spec(spec: OnnxModelSpec) -> StreamingSpec:
    assert spec.streaming is not None
    return spec.streaming


def slots(*numbers: int) -> Ints:
    return np.array(numbers, dtype=np.int64)


@pytest.fixture(scope="module", params=STREAMING)
def spec(request: pytest.FixtureRequest) -> OnnxModelSpec:
    return load_bundle(BUNDLES / request.param)


@pytest.fixture(scope="module")
def session(spec: OnnxModelSpec) -> onnxruntime.InferenceSession:
    return plain_session(spec.encoder.file)


@pytest.fixture(scope="module")
def windows(spec: OnnxModelSpec, clips: list[Floats]) -> Floats:
    """[stream, chunk, window_frames, feature_dim]: the first chunks of some recordings."""
    streaming = streaming_spec(spec)
    features = [Fbank()(clip) for clip in clips[:CAPACITY]]
    firsts = range(0, CHUNKS * streaming.chunk_frames, streaming.chunk_frames)
    return np.stack([np.stack([rows[first:][: streaming.window_frames] for first in firsts]) for rows in features])


@pytest.fixture(scope="module")
def wanted(session: onnxruntime.InferenceSession, windows: Floats) -> Floats:
    """[stream, chunk, T', joiner_dim]: every stream by itself."""
    encoders = [PlainEncoder(session) for _ in windows]
    return np.stack(
        [np.stack([encoder(chunk) for chunk in chunks]) for encoder, chunks in zip(encoders, windows, strict=True)]
    )


@pytest.fixture(scope="module")
def shared_runner(spec: OnnxModelSpec) -> OnnxRuntimeStreamRunner:
    return OnnxRuntimeStreamRunner(spec, threads=2, capacity=CAPACITY)


@pytest.fixture
def runner(shared_runner: OnnxRuntimeStreamRunner) -> OnnxRuntimeStreamRunner:
    """With clean slots."""
    return cleaned(shared_runner)


def cleaned(runner: OnnxRuntimeStreamRunner) -> OnnxRuntimeStreamRunner:
    for slot in range(CAPACITY):
        runner.reset(slots(slot))
    return runner


# ------------------------------------------------------------------------------------------------------ what it gives


def steps_equal_the_export(runner: OnnxRuntimeStreamRunner, windows: Floats, wanted: Floats) -> None:
    """Every stream gets what it gets by itself, whatever others are in its batches."""
    at = [0] * CAPACITY
    for together in ([0, 1, 2], [2], [5, 0, 4], [3, 1], [2, 0, 1], [4, 5], [3, 4, 5, 0], [1, 2], [3, 4, 5], [3]):
        x = np.stack([windows[stream, at[stream]] for stream in together])
        encoder_out = runner.encoder(x, slots(*together))
        assert encoder_out.dtype == np.float32
        assert encoder_out.shape == (len(together), *wanted.shape[2:])
        for row, stream in zip(encoder_out, together, strict=True):
            np.testing.assert_allclose(row, wanted[stream, at[stream]], atol=1e-4, err_msg=f"{stream}, {at[stream]}")
            at[stream] += 1
    assert at == [CHUNKS] * CAPACITY


def test_is_the_export_whatever_streams_go_together(
    runner: OnnxRuntimeStreamRunner, windows: Floats, wanted: Floats
) -> None:
    streaming = streaming_spec(runner.spec)
    assert wanted.shape[2:] == (streaming.chunk_frames // 4, runner.spec.joiner_dim)
    steps_equal_the_export(runner, windows, wanted)


def test_without_the_rewriting_of_activations(spec: OnnxModelSpec, windows: Floats, wanted: Floats) -> None:
    runner = OnnxRuntimeStreamRunner(spec, threads=1, capacity=CAPACITY, rewrite=False)
    steps_equal_the_export(runner, windows, wanted)


def test_the_states_are_those_of_the_export(
    runner: OnnxRuntimeStreamRunner, session: onnxruntime.InferenceSession, windows: Floats
) -> None:
    """The Conformer's `processed_lens` counts encoder frames: 16 a chunk."""
    for chunk in range(3):
        runner.encoder(windows[:2, chunk], slots(4, 1))
    for row, slot in enumerate((4, 1)):
        plain = PlainEncoder(session)
        for chunk in range(3):
            plain(windows[row, chunk])
        gathered = runner._states.gather(slots(slot))
        for state, value in zip(streaming_spec(runner.spec).states, gathered, strict=True):
            np.testing.assert_allclose(value, plain.states[state.name], atol=1e-4, err_msg=state.name)
            if state.output is None:
                assert value.tolist() == [3 * 16]


def test_a_slot_that_is_reset_starts_anew(runner: OnnxRuntimeStreamRunner, windows: Floats) -> None:
    first = runner.encoder(windows[:1, 0], slots(3))
    second = runner.encoder(windows[:1, 0], slots(3))
    assert np.abs(second - first).max() > 1e-3
    runner.reset(slots(3))
    np.testing.assert_array_equal(runner.encoder(windows[:1, 0], slots(3)), first)


def test_reset_touches_no_other_slot(runner: OnnxRuntimeStreamRunner, windows: Floats) -> None:
    runner.encoder(windows[:3, 0], slots(0, 1, 2))
    kept = runner._states.gather(slots(0, 2))
    runner.reset(slots(1))
    for before, after in zip(kept, runner._states.gather(slots(0, 2)), strict=True):
        np.testing.assert_array_equal(after, before)


def test_nan_in_one_stream_reaches_no_other(runner: OnnxRuntimeStreamRunner, windows: Floats) -> None:
    """Neither in the step that has it nor in those after; and the slot is clean again when it is reset."""
    healthy = [runner.encoder(windows[:3, chunk], slots(0, 1, 2)) for chunk in range(CHUNKS)]
    first = runner.encoder(windows[:1, 0], slots(5))
    for slot in range(3):
        runner.reset(slots(slot))
    for chunk, wanted in enumerate(healthy):
        x = windows[:3, chunk].copy()
        x[1] = np.nan
        got = runner.encoder(x, slots(0, 1, 2))
        np.testing.assert_array_equal(got[[0, 2]], wanted[[0, 2]])
        assert np.isnan(got[1]).all()
    runner.reset(slots(1))
    np.testing.assert_array_equal(runner.encoder(windows[:1, 0], slots(1)), first)


# ------------------------------------------------------------------------------------- exports for one stream at a time


def fix_batch(model: Any) -> None:
    """As `export-onnx-streaming.py` without dynamic axes writes it: ONNX Runtime then refuses any batch but 1."""
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "N":
                dim.dim_value = 1


@pytest.fixture(scope="module")
def one_by_one(spec: OnnxModelSpec, tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntimeStreamRunner:
    folder = Path(shutil.copytree(spec.path, tmp_path_factory.mktemp("fixed") / spec.path.name))
    edit_onnx(folder / spec.encoder.file.name, fix_batch)
    return OnnxRuntimeStreamRunner(load_bundle(folder), threads=1, capacity=CAPACITY)


def test_an_export_without_batches_takes_streams_one_by_one(
    one_by_one: OnnxRuntimeStreamRunner, windows: Floats, wanted: Floats
) -> None:
    runner = cleaned(one_by_one)
    assert runner.spec.encoder.input("x", 0).shape[0] == 1
    states = zip(streaming_spec(runner.spec).states, runner._states.gather(slots(0, 1)), strict=True)
    with pytest.raises(Exception, match=r"Got: 2 Expected: 1"):
        runner._encoder.run(None, {"x": windows[:2, 0]} | {state.name: value for state, value in states})
    steps_equal_the_export(runner, windows, wanted)


# ------------------------------------------------------------------------------------------------------ when it fails


class Failing:
    """A session that works a few times."""

    def __init__(self, session: Any, times: int) -> None:
        self._session = session
        self._times = times

    def run(self, *arguments: Any) -> Any:
        self._times -= 1
        if self._times < 0:
            raise RuntimeError("out of memory\nat line 1")
        return self._session.run(*arguments)


@pytest.mark.parametrize("fixture", ["runner", "one_by_one"])
def test_states_are_as_before_when_a_step_fails(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, windows: Floats, wanted: Floats, fixture: str
) -> None:
    """Also where the streams go through the encoder one by one and only the third fails."""
    runner = cleaned(request.getfixturevalue(fixture))
    together = slots(2, 0, 1)
    runner.encoder(windows[:3, 0], together)
    before = runner._states.gather(together)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_encoder", Failing(runner._encoder, 2 if fixture == "one_by_one" else 0))
        with pytest.raises(EngineError, match=r"failed on x \[., .*out of memory") as caught:
            runner.encoder(windows[:3, 1], together)
    assert "\n" not in caught.value.message
    for was, now in zip(before, runner._states.gather(together), strict=True):
        np.testing.assert_array_equal(now, was)
    np.testing.assert_allclose(runner.encoder(windows[:3, 1], together), wanted[:3, 1], atol=1e-4)


def test_a_wrong_window_is_an_engine_error(runner: OnnxRuntimeStreamRunner, windows: Floats) -> None:
    with pytest.raises(EngineError, match=r"ONNX Runtime failed on x \[1, "):
        runner.encoder(windows[:1, 0, :-1], slots(0))


# -------------------------------------------------------------------------------------------------- facts and refusals


def test_facts(runner: OnnxRuntimeStreamRunner, spec: OnnxModelSpec) -> None:
    assert runner.limits == StepLimits(CAPACITY, 16, 2)
    assert runner.context_size == 2
    assert runner.skipped_ids == (0, 2)
    assert runner.spec is spec


def test_defaults() -> None:
    runner = OnnxRuntimeStreamRunner(load_bundle(BUNDLES / "lstm-streaming"))
    assert runner.limits == StepLimits(MAX_STREAMS, 16, len(os.sched_getaffinity(0)))


def test_fewer_workers_than_threads_and_another_batch() -> None:
    spec = load_bundle(BUNDLES / "lstm-streaming")
    runner = OnnxRuntimeStreamRunner(spec, threads=3, workers=1, max_batch=5)
    assert (runner.limits.num_workers, runner.limits.max_batch) == (1, 5)


def test_an_offline_model_is_refused() -> None:
    with pytest.raises(BundleError, match="Expected a streaming model, got the offline conformer in"):
        OnnxRuntimeStreamRunner(load_bundle(BUNDLES / "conformer-offline"))


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    ("name", "called"), [("threads", "threads"), ("capacity", "streams"), ("max_batch", "streams in a batch")]
)
def test_counts_below_one(name: str, called: str, value: int) -> None:
    with pytest.raises(OptionsError, match=f"Expected at least 1 of {called}, got {value}"):
        OnnxRuntimeStreamRunner(load_bundle(BUNDLES / "lstm-streaming"), **{name: value})


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "CPU", ""])
def test_devices_that_there_are_none_of(device: str) -> None:
    with pytest.raises(OptionsError, match="Expected a device of cpu, cuda or cuda:N, got"):
        OnnxRuntimeStreamRunner(load_bundle(BUNDLES / "lstm-streaming"), device=device)


def test_cuda_without_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="no CUDA provider, only CPUExecutionProvider"):
        OnnxRuntimeStreamRunner(load_bundle(BUNDLES / "lstm-streaming"), device="cuda")


def use_an_unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Teleport"


def drop_a_node(model: Any) -> None:
    del model.graph.node[0]


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("damage", [use_an_unknown_operator, drop_a_node])
def test_a_graph_that_parses_and_does_not_run(tmp_path: Path, role: str, damage: Callable[[Any], None]) -> None:
    folder = Path(shutil.copytree(BUNDLES / "conformer-streaming", tmp_path / "model"))
    file = next(folder.glob(f"{role}*.onnx"))
    edit_onnx(file, damage)
    with pytest.raises(EngineError, match="ONNX Runtime cannot load") as caught:
        OnnxRuntimeStreamRunner(load_bundle(folder))
    assert str(file) in caught.value.message


def test_states_that_go_by_position(spec: OnnxModelSpec, windows: Floats, wanted: Floats, tmp_path: Path) -> None:
    """Where an export names its new states otherwise, their order says which is which, as in sherpa-onnx."""
    folder = Path(shutil.copytree(spec.path, tmp_path / "model"))
    states = [tensor.name for tensor in spec.encoder.outputs if tensor.name != "encoder_out"]
    rename_tensors(folder / spec.encoder.file.name, {name: f"{name}_next" for name in states})
    runner = OnnxRuntimeStreamRunner(load_bundle(folder), threads=1, capacity=CAPACITY)
    for chunk in range(CHUNKS):
        np.testing.assert_allclose(runner.encoder(windows[:2, chunk], slots(1, 0)), wanted[:2, chunk], atol=1e-4)
