"""Encoders on the GPU against their plain twins: every utterance of a padded batch as if it were alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from moulin.bundle.checkpoint import read_checkpoint
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.encoders.recipe import Recipe
from moulin.encoders.transducer import Transducer
from moulin.errors import EngineError
from moulin.evaluate.torch_encoders import GpuEngineEncoder
from moulin.gpu.encoder import GpuEncoder
from moulin.gpu.families import OFFLINE_FAMILIES, STREAM_FAMILIES
from moulin.gpu.open_encoder import gpu_encoder, gpu_stream_encoder, state_bytes
from tests.bundles import BUNDLES

from .random_models import random_zipformer2

NAMES = [
    "conformer-offline",
    "conformer-streaming",
    "zipformer-offline",
    "zipformer-streaming",
    "zipformer2-offline",
    "zipformer2-streaming",
    "zipformer2-offline-pos8",
]
HEADS = {"zipformer2-offline-pos8": (4,)}
"""Where a bare state dict does not tell them."""
LENGTHS = np.array([9, 41, 12], dtype=np.int32)
DAMAGED = 2
FILLED_UP = 48


def load(name: str) -> Transducer:
    tensors = read_checkpoint(BUNDLES / name / "epoch-1.pt").tensors
    causal = True if "streaming" in name else None
    return Transducer.from_tensors(tensors, Recipe(causal=causal, num_heads=HEADS.get(name)))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_plain_encoder(name: str, device: torch.device) -> None:
    """The outputs are equal also beside an utterance of NaN, which does not spread."""
    transducer = load(name)
    encoder = gpu_encoder(transducer, device=device, dtype=torch.float32, max_frames=80)
    x = torch.randn(len(LENGTHS), FILLED_UP, encoder.feature_dim) * 3 - 5
    x[DAMAGED] = torch.nan
    counts = encoder.counts(LENGTHS)
    out = encoder(x.to(device), torch.from_numpy(counts).to(device)).cpu()
    assert out.shape[1] == encoder.out_frames(FILLED_UP)
    for row, length in enumerate(LENGTHS.tolist()):
        if row == DAMAGED:
            assert out[row, : counts[-1, row]].isnan().all()
            continue
        assert torch.isfinite(out[row]).all()
        wanted, frames = transducer.encode(x[row : row + 1, :length], torch.tensor([length]))
        assert int(frames) == counts[-1, row]
        assert float((out[row, : int(frames)] - wanted[0, : int(frames)]).abs().max()) < 1e-4


def test_other_sizes_in_every_stack(device: torch.device) -> None:
    """Heads, and their channels for queries, positions and values."""
    transducer = random_zipformer2(causal=False)
    encoder = gpu_encoder(transducer, device=device, dtype=torch.float32, max_frames=80)
    x = torch.randn(1, 41, encoder.feature_dim) * 3 - 5
    out = encoder(x.to(device), torch.from_numpy(encoder.counts_of(41)).to(device)).cpu()
    wanted, _ = transducer.encode(x, torch.tensor([41]))
    assert float((out - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@pytest.mark.parametrize("on_device", [False, True])
def test_the_benchmark_measures_this_encoder(on_device: bool, device: torch.device) -> None:
    spec = replace(load_checkpoint_spec(BUNDLES / "conformer-offline", streaming=False), run_in="fp32")
    measured = GpuEngineEncoder(spec, device=str(device), on_device=on_device, cuda_graphs=device.type == "cuda")
    x = torch.randn(2, 40, 80) * 3 - 5
    call = measured.prepare(x.numpy(), np.array([40, 40]))
    calls = 3 if device.type == "cuda" else 1  # the third as a graph
    found = [torch.as_tensor(call()).cpu() for _ in range(calls)][-1]
    wanted, frames = load("conformer-offline").encode(x, torch.tensor([40, 40]))
    assert float((found[:, : int(frames[0])] - wanted).abs().max()) < 1e-4


def test_half_precision_stays_near(device: torch.device) -> None:
    transducer = load("zipformer2-offline")
    encoder = gpu_encoder(transducer, device=device, dtype=torch.float16, max_frames=80)
    x = torch.randn(1, 40, encoder.feature_dim) * 3 - 5
    out = encoder(x.to(device), torch.from_numpy(encoder.counts_of(40)).to(device)).float().cpu()
    wanted, _ = transducer.encode(x, torch.tensor([40]))
    assert float((out - wanted).norm() / wanted.norm()) < 5e-3


def test_an_lstm_is_refused(device: torch.device) -> None:
    with pytest.raises(EngineError, match="does not know the lstm encoder"):
        gpu_encoder(load("lstm-streaming"), device=device, dtype=torch.float32, max_frames=80)


def test_every_family_of_the_tables_is_there() -> None:
    for families in (OFFLINE_FAMILIES, STREAM_FAMILIES):
        for where in families.values():
            module, _, name = where.partition(":")
            form = getattr(importlib.import_module(module), name)
            assert issubclass(form, GpuEncoder) == (families is OFFLINE_FAMILIES)
            assert hasattr(form, "state_bytes") == (families is STREAM_FAMILIES)


def test_whether_a_family_is_known_is_told_without_torch() -> None:
    code = "import sys, moulin.gpu.families; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_streams_of_a_family_without_a_form_are_refused(device: torch.device) -> None:
    transducer = load("conformer-streaming")
    transducer.encoder.family = "emformer"
    with pytest.raises(EngineError, match="does not know the emformer encoder of streams"):
        gpu_stream_encoder(transducer, capacity=1, max_batch=1, device=device, dtype=torch.float32)
    with pytest.raises(EngineError, match="does not know the emformer encoder of streams"):
        state_bytes(transducer.encoder, torch.float32)
