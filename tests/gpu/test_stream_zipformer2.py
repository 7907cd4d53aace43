"""Chunks of many streams, each in its slot, against the plain encoder that carries its states along."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.encoder import StreamingLayout
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer2 import Zipformer2
from moulin.errors import EngineError
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.stream_zipformer2 import GpuStreamZipformer2
from tests.bundles import BUNDLES

from .random_zipformer2 import random_zipformer2

CHUNK, LEFT = 8, 16


def load(name: str) -> tuple[Transducer, Zipformer2]:
    transducer = Transducer.from_tensors(read_checkpoint(BUNDLES / name / "epoch-1.pt").tensors)
    assert isinstance(transducer.encoder, Zipformer2)
    return transducer, transducer.encoder


def chunks(slots: list[int], numbers: list[int], device: torch.device) -> Chunks:
    return Chunks(*(torch.tensor(values, dtype=torch.int32, device=device) for values in (slots, numbers)))


def on_gpu(
    transducer: Transducer, encoder: Zipformer2, capacity: int, dtype: torch.dtype, device: torch.device
) -> GpuStreamZipformer2:
    return GpuStreamZipformer2(
        encoder,
        transducer.joiner,
        capacity=capacity,
        max_batch=capacity,
        device=device,
        dtype=dtype,
        chunk_size=CHUNK,
        left_context_frames=LEFT,
    )


class PlainStream:
    def __init__(self, transducer: Transducer, layout: StreamingLayout) -> None:
        self._transducer, self._encoder = transducer, transducer.encoder
        self._states = self._encoder.initial_states(layout, 1, torch.device("cpu"))

    def __call__(self, window: Tensor) -> Tensor:
        out, self._states = self._encoder.streaming_forward(window[None], self._states)
        return self._transducer.joiner.encoder_proj(out)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("of_bundle", [True, False], ids=["bundle", "other sizes in every stack"])
def test_equals_the_plain_encoder(of_bundle: bool, device: torch.device) -> None:
    """Streams come and go in three slots, in changing batches and order, for more chunks than a ring holds."""
    if of_bundle:
        transducer, encoder = load("zipformer2-streaming")
    else:
        transducer = random_zipformer2(causal=True)
        assert isinstance(transducer.encoder, Zipformer2)
        encoder = transducer.encoder
    layout = encoder.streaming_layout(CHUNK, LEFT)
    ours = on_gpu(transducer, encoder, 3, torch.float32, device)
    streams: dict[int, PlainStream] = {}
    numbers = dict.fromkeys(range(3), 0)
    for slots, starting in [
        ([1], [1]),
        ([2, 1], [2]),
        ([1, 0], [0]),
        ([2, 1], [2]),  # another stream in a slot that has been used
    ]:
        for slot in starting:
            streams[slot], numbers[slot] = PlainStream(transducer, layout), 0
        windows = torch.randn(len(slots), layout.window_frames, encoder.feature_dim) * 3 - 5
        at = chunks(slots, [numbers[slot] for slot in slots], device)
        out = ours(windows.to(device), at).cpu()
        assert out.shape[1] == ours.out_frames
        for row, slot in enumerate(slots):
            wanted = streams[slot](windows[row])
            assert float((out[row] - wanted).abs().max()) < 1e-4 * max(1.0, float(wanted.abs().max()))
            numbers[slot] += 1


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's, of NaN
def test_a_slot_keeps_nothing_of_the_stream_before(device: torch.device) -> None:
    """Not even NaN."""
    transducer, encoder = load("zipformer2-streaming")
    ours = on_gpu(transducer, encoder, 2, torch.float16, device)
    window = torch.randn(1, encoder.streaming_layout(CHUNK, LEFT).window_frames, encoder.feature_dim, device=device)
    fresh = ours(window, chunks([0], [0], device))
    assert ours(window * torch.nan, chunks([1], [0], device)).isnan().any()
    assert torch.equal(ours(window, chunks([1], [0], device)), fresh)


@pytest.mark.parametrize(("chunk", "left", "message"), [(2, 4, "3 frames or more"), (64, 512, "too large")])
def test_sizes_that_the_kernels_do_not_take(chunk: int, left: int, message: str, device: torch.device) -> None:
    transducer, encoder = load("zipformer2-streaming")
    with pytest.raises(EngineError, match=message):
        GpuStreamZipformer2(
            encoder,
            transducer.joiner,
            capacity=1,
            max_batch=1,
            device=device,
            dtype=torch.float16,
            chunk_size=chunk,
            left_context_frames=left,
        )


def test_a_model_that_is_not_causal_is_refused(device: torch.device) -> None:
    transducer, encoder = load("zipformer2-offline")
    with pytest.raises(ValueError, match="not causal"):
        GpuStreamZipformer2(encoder, transducer.joiner, capacity=1, max_batch=1, device=device, dtype=torch.float16)
