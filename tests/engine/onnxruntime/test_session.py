"""Sessions of ONNX Runtime: devices, denormals, graphs that do not run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.session import new_session
from moulin.errors import EngineError, OptionsError
from tests.bundles import BUNDLES, OFFLINE


def test_floats_of_the_calling_thread_stay_as_they_are(offline_runner: OnnxRuntimeRunner) -> None:
    """ONNX Runtime can make zeros of denormals, and then does so for whoever opened the first model."""
    offline_runner.decoder(np.zeros((1, 2), np.int64))
    assert np.float32(1e-40) * np.float32(0.5) > 0


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cuda:-1", "", "cpu:0"])
def test_devices_that_there_are_none_of(device: str) -> None:
    with pytest.raises(OptionsError, match="Expected a device of cpu, cuda or cuda:N, got"):
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_its_provider(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Never a silent fall-back to the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="no CUDA provider, only CPUExecutionProvider") as caught:
        OnnxRuntimeRunner(load_bundle(BUNDLES / OFFLINE[0]), device=device)
    assert ".[engine-gpu]" in str(caught.value.hint)


def shrink_a_weight(model: Any) -> None:
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    weight.dims[0] -= 1


def use_an_unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Teleport"


def drop_a_node(model: Any) -> None:
    del model.graph.node[0]


@pytest.mark.parametrize("role", ["encoder", "decoder", "joiner"])
@pytest.mark.parametrize("damage", [shrink_a_weight, use_an_unknown_operator, drop_a_node])
def test_a_graph_that_parses_and_does_not_run(tmp_path: Path, role: str, damage: Callable[[Any], None]) -> None:
    folder = Path(shutil.copytree(BUNDLES / "conformer-offline", tmp_path / "model"))
    file = next(folder.glob(f"{role}*.onnx"))
    model = onnx.load(file)
    damage(model)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="ONNX Runtime cannot load") as caught:
        OnnxRuntimeRunner(load_bundle(folder))
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message


def test_threads_sleep_when_they_wait() -> None:
    """After a call by several threads no CPU time is used."""
    encoder = load_bundle(BUNDLES / "zipformer2-offline").encoder
    session = new_session(encoder.file, "cpu", 2)
    feeds = {"x": np.zeros((1, 200, 80), np.float32), "x_lens": np.array([200])}
    session.run(None, feeds)
    used = []
    for _ in range(3):
        session.run(None, feeds)
        before = time.process_time()
        time.sleep(0.05)
        used.append(time.process_time() - before)
    assert min(used) < 0.002  # other threads of this process may work in one of the pauses
