"""Every runner gives what the model's usual engine gives, wherever its clock starts and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moulin.bundle.load_model import load_model
from moulin.evaluate.encoder_runners import CHECKPOINT_KINDS, Kind, open_encoder
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import install


@pytest.mark.parametrize("kind", ["onnxruntime", "torch", "torch-compiled"])
@pytest.mark.parametrize("on_device", [False, True])
def test_what_is_measured_is_the_encoder(kind: Kind, on_device: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's compiler is here without its last part, which needs one for C++ and half a minute."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, **_: compiler(run, backend="eager"))
    folder = BUNDLES / "conformer-offline"
    x = np.random.default_rng(0).normal(-6, 4, (2, 70, 80)).astype(np.float32)
    lengths = np.array([70, 50])
    usual, wanted = _result(folder, None, x, lengths, on_device=False)
    chosen, found = _result(folder, kind, x, lengths, on_device=on_device)
    assert (usual, chosen) == ("onnxruntime", kind)
    for row, frames in enumerate((16, 11)):
        assert np.abs(found[row, :frames] - wanted[row, :frames]).max() < 1e-4


@pytest.mark.parametrize("on_device", [False, True])
def test_an_engine_of_tensorrt(on_device: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path)
    spec = load_model(BUNDLES / "conformer-offline")
    limits: Any = {"max_batch": 2, "num_frames": 70}
    chosen, encoder = open_encoder(spec, "tensorrt", device="cpu", threads=1, on_device=on_device, **limits)
    found: Any = encoder.prepare(np.zeros((2, 70, 80), np.float32), np.array([70, 70]))()
    out = found["encoder_out"].numpy() if on_device else found[0]
    assert (chosen, out.shape) == ("tensorrt", (2, 16, spec.joiner_dim))


def _result(folder: Any, kind: Kind | None, x: Any, lengths: Any, *, on_device: bool) -> tuple[Kind, Any]:
    spec = load_model(folder, prefer_checkpoint=kind in CHECKPOINT_KINDS)
    chosen, encoder = open_encoder(spec, kind, device="cpu", threads=1, on_device=on_device)
    found: Any = encoder.prepare(x, lengths)()
    if isinstance(found, list | tuple):  # encoder_out and its lengths
        found = found[0]
    return chosen, np.asarray(found.numpy() if hasattr(found, "numpy") else found)
