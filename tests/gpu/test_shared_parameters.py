"""A model that is open for recordings and for streams on one card has its parameters there once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.load import load_bundle
from moulin.bundle.transducer import transducer_of
from moulin.encoders.transducer import Transducer
from moulin.gpu.open_encoder import gpu_encoder, gpu_stream_encoder
from moulin.gpu.predictor import Predictor
from moulin.gpu.shared_parameters import shared
from tests.bundles import BUNDLES

HALF = torch.float16
LARGE = 200
"""Values of a tensor that is not counted."""


def weights(part: Any) -> Iterator[Tensor]:
    """All tensors in a form of an encoder."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for one in part:
            yield from weights(one)
    elif is_dataclass(part):
        for field in fields(part):
            yield from weights(getattr(part, field.name))
    elif type(part).__module__.startswith("moulin.gpu") and hasattr(part, "__dict__"):
        for one in vars(part).values():
            yield from weights(one)


def storages(part: Any) -> dict[int, int]:
    """Places in memory, with their bytes, of all parameters of more than LARGE values."""
    found = {}
    for tensor in weights(part):
        if tensor.numel() > LARGE:
            memory = tensor.untyped_storage()
            found[memory.data_ptr()] = memory.nbytes()
    return found


def both(device: torch.device, offline: Transducer, live: Transducer) -> tuple[Any, Any]:
    return (
        gpu_encoder(offline, device=device, dtype=HALF, max_frames=80),
        gpu_stream_encoder(live, capacity=1, max_batch=1, device=device, dtype=HALF),
    )


@pytest.mark.parametrize("name", ["conformer-streaming", "zipformer-streaming", "zipformer2-streaming"])
def test_recordings_and_streams(name: str, device: torch.device) -> None:
    """Of a checkpoint that is loaded twice they have all in common but the tables of distances."""
    spec = load_checkpoint_spec(BUNDLES / name, streaming=True)
    one, two = transducer_of(spec), transducer_of(spec)
    offline, live = both(device, one, two)
    ours, theirs = storages(offline), storages(live)
    assert sum(size for place, size in ours.items() if place in theirs) > 0.95 * sum(ours.values())


def test_a_checkpoint_and_its_onnx_files(device: torch.device) -> None:
    name = "zipformer2-streaming"
    one = transducer_of(load_checkpoint_spec(BUNDLES / name, streaming=True))
    two = transducer_of(load_bundle(BUNDLES / name))
    offline, live = both(device, one, two)
    ours, theirs = storages(offline), storages(live)
    assert sum(size for place, size in ours.items() if place in theirs) > 0.95 * sum(ours.values())


def test_the_predictor(device: torch.device) -> None:
    spec = load_checkpoint_spec(BUNDLES / "zipformer2-streaming", streaming=True)
    one, two = transducer_of(spec), transducer_of(spec)
    made = [Predictor.of(each.decoder, each.joiner, device=device, dtype=HALF) for each in (one, two)]
    assert made[0] is made[1]
    assert Predictor.of(one.decoder, one.joiner, device=device, dtype=torch.float32) is not made[0]
    two.joiner.output_linear.bias[0] += 1
    assert Predictor.of(two.decoder, two.joiner, device=device, dtype=HALF) is not made[0]


def test_values_form_and_dtype_tell_parameters_apart(device: torch.device) -> None:
    square = torch.arange(16.0).view(4, 4)
    kept = shared(square, device, HALF)
    assert shared(square.clone(), device, HALF) is kept
    for other in (square + 1, square.t(), square.view(2, 8)):
        assert shared(other, device, HALF) is not kept
        assert torch.equal(shared(other, device, HALF).float().cpu(), other)
    assert shared(square, device, torch.float32).dtype == torch.float32


def test_nothing_is_kept_that_nobody_uses(device: torch.device) -> None:
    from moulin.gpu import shared_parameters

    before = len(shared_parameters._held)
    kept = shared(torch.full((3, 5), 0.125), device, HALF)
    assert len(shared_parameters._held) == before + 1
    del kept
    gc.collect()
    assert len(shared_parameters._held) == before
