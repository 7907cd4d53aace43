"""The memory of a pass, counted on `meta`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.transducer import transducer_of
from moulin.engine.gpu import kernels
from moulin.gpu.peak_memory import peak_bytes
from tests.bundles import BUNDLES

THOUSAND = 1000


def test_what_is_held_at_once() -> None:
    def run() -> Tensor:
        a = torch.empty(THOUSAND, device="meta")
        b = a + 1
        del a
        c = b.view(10, -1)[3:] * 2  # a view is no memory of its own
        return b.sum() + c.sum()

    assert 8 * THOUSAND <= peak_bytes(run) < 8 * THOUSAND + 64
    assert peak_bytes(lambda: torch.empty(THOUSAND)) == 0


@pytest.mark.parametrize("family", ["conformer", "lstm", "zipformer", "zipformer2"])
def test_a_step_of_each_family(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel runs, and what a stream takes does not depend on how many were counted."""
    spec = replace(load_checkpoint_spec(BUNDLES / f"{family}-streaming", streaming=True), run_in="fp16")
    transducer = transducer_of(spec)
    counted = kernels.step_bytes(spec, transducer, beam=4)
    assert counted > spec.joiner_dim * torch.float16.itemsize
    monkeypatch.setattr(kernels, "_COUNTED", 16)
    assert kernels.step_bytes(spec, transducer, beam=4) == pytest.approx(counted, rel=0.05)
