"""Chunks of many streams, each in its slot, against the plain encoder that carries its states along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.recipe import Recipe
from moulin.encoders.transducer import Transducer
from moulin.errors import EngineError
from moulin.gpu.encoder import GpuStreamEncoder
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.open_encoder import check_stream_sizes, gpu_stream_encoder, state_bytes
from tests.bundles import BUNDLES

from .random_models import random_conformer, random_lstm, random_zipformer, random_zipformer2


def of_bundle(name: str, **recipe: Any) -> Transducer:
    transducer = Transducer.from_tensors(read_checkpoint(BUNDLES / name / "epoch-1.pt").tensors)
    transducer.encoder.recipe = Recipe(**recipe)
    return transducer


def small_zipformer2() -> Transducer:
    transducer = random_zipformer2(causal=True)
    transducer.encoder.recipe = Recipe(chunk_size=8, left_context_frames=16)
    return transducer


BY_BUNDLE: dict[str, Callable[[], Transducer]] = {
    "zipformer2": lambda: of_bundle("zipformer2-streaming", chunk_size=8, left_context_frames=16),
    "zipformer": lambda: of_bundle("zipformer-streaming", chunk_size=16, left_context_frames=16),
    "conformer": lambda: of_bundle("conformer-streaming", chunk_size=5, left_context_frames=9, right_context=2),
    "lstm": lambda: of_bundle("lstm-streaming"),
}
"""Chunks and left contexts so small that a few chunks fill the rings."""
OTHERS: dict[str, Callable[[], Transducer]] = {
    "zipformer2, other sizes in every stack": small_zipformer2,
    "zipformer, other sizes in every stack": lambda: random_zipformer(Recipe(chunk_size=24, left_context_frames=18)),
    "conformer, no right context": lambda: random_conformer(Recipe(chunk_size=4, left_context_frames=7)),
    "conformer, more right context than chunk": lambda: random_conformer(
        Recipe(chunk_size=1, left_context_frames=3, right_context=4)
    ),
    "conformer, several blocks of frames": lambda: random_conformer(
        Recipe(chunk_size=67, left_context_frames=70, right_context=2)
    ),
    "lstm without a projection": lambda: random_lstm(cells=36),
    "lstm of odd sizes": lambda: random_lstm(cells=51),
}
FAMILIES = sorted(BY_BUNDLE)


def chunks(slots: list[int], numbers: list[int], device: torch.device) -> Chunks:
    return Chunks(*(torch.tensor(values, dtype=torch.int32, device=device) for values in (slots, numbers)))


def on_gpu(transducer: Transducer, capacity: int, dtype: torch.dtype, device: torch.device) -> GpuStreamEncoder:
    return gpu_stream_encoder(transducer, capacity=capacity, max_batch=capacity, device=device, dtype=dtype)


class PlainStream:
    def __init__(self, transducer: Transducer) -> None:
        self._transducer, self._encoder = transducer, transducer.encoder
        self._states = self._encoder.initial_states(self._encoder.streaming_layout(), 1)

    def __call__(self, window: Tensor) -> Tensor:
        out, self._states = self._encoder.streaming_forward(window[None], self._states)
        return self._transducer.joiner.encoder_proj(out)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [*BY_BUNDLE.values(), *OTHERS.values()], ids=[*BY_BUNDLE, *OTHERS])
def test_equals_the_plain_encoder(make: Callable[[], Transducer], device: torch.device) -> None:
    """Streams come and go in three slots, in changing batches and order, for more chunks than a ring holds. The last
    slot is that of rows that fill a batch up."""
    transducer = make()
    layout = transducer.encoder.streaming_layout()
    ours = on_gpu(transducer, 4, torch.float32, device)
    streams: dict[int, PlainStream] = {}
    numbers = dict.fromkeys(range(3), 0)
    for slots, starting in [
        ([1], [1]),
        ([2, 1], [2]),
        ([1, 0], [0]),
        ([1], []),
        ([2, 1], [2]),  # another stream in a slot that has been used
    ]:
        for slot in starting:
            streams[slot], numbers[slot] = PlainStream(transducer), 0
        windows = torch.randn(len(slots), layout.window_frames, ours.feature_dim) * 3 - 5
        filling = [3, 3] if starting == [0] else []
        at = chunks([*slots, *filling], [*(numbers[slot] for slot in slots), *(0 for _ in filling)], device)
        full = torch.cat([windows, torch.zeros(len(filling), *windows.shape[1:])])
        out = ours(full.to(device), at).cpu()
        assert out.shape[:2] == (len(full), ours.out_frames)
        for row, slot in enumerate(slots):
            wanted = streams[slot](windows[row])
            assert float((out[row] - wanted).abs().max()) < 1e-4 * max(1.0, float(wanted.abs().max()))
            numbers[slot] += 1


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.parametrize("family", FAMILIES)
def test_a_slot_keeps_nothing_of_the_stream_before(family: str, device: torch.device) -> None:
    """Not even NaN."""
    transducer = BY_BUNDLE[family]()
    ours = on_gpu(transducer, 2, torch.float16, device)
    window = torch.randn(1, transducer.encoder.streaming_layout().window_frames, ours.feature_dim, device=device)
    fresh = ours(window, chunks([0], [0], device))
    assert torch.isfinite(fresh).all()
    assert ours(window * torch.nan, chunks([1], [0], device)).isnan().any()
    assert torch.equal(ours(window, chunks([1], [0], device)), fresh)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_stays_near(family: str, product_dtype: torch.dtype, device: torch.device) -> None:
    transducer = BY_BUNDLE[family]()
    plain, ours = PlainStream(transducer), on_gpu(transducer, 1, product_dtype, device)
    for number in range(2):
        window = torch.randn(1, transducer.encoder.streaming_layout().window_frames, ours.feature_dim) * 3 - 5
        out, wanted = ours(window.to(device), chunks([0], [number], device)).float().cpu()[0], plain(window[0])
        assert ours.dtype == product_dtype
        assert float((out - wanted).norm() / wanted.norm()) < {torch.float16: 5e-3, torch.bfloat16: 4e-2}[product_dtype]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_streams_states_are_counted(
    family: str, dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    transducer = BY_BUNDLE[family]()
    allocated: list[int] = []
    zeros = torch.zeros

    def counted(*size: int, **options: Any) -> Tensor:
        tensor = zeros(*size, **options)
        if size[0] == 7:
            allocated.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(torch, "zeros", counted)
    gpu_stream_encoder(transducer, capacity=7, max_batch=1, device=device, dtype=dtype)
    assert sum(allocated) == 7 * state_bytes(transducer.encoder, dtype)


@pytest.mark.parametrize(("chunk", "left", "message"), [(2, 4, "3 frames or more"), (64, 512, "too large")])
def test_sizes_that_the_kernels_do_not_take(chunk: int, left: int, message: str, device: torch.device) -> None:
    transducer = of_bundle("zipformer2-streaming", chunk_size=chunk, left_context_frames=left)
    with pytest.raises(EngineError, match=message):
        on_gpu(transducer, 1, torch.float16, device)
    with pytest.raises(EngineError, match=message):
        check_stream_sizes("zipformer2", transducer.tensors(), transducer.encoder.recipe)


def test_a_model_that_is_not_causal_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="not causal"):
        on_gpu(of_bundle("zipformer2-offline"), 1, torch.float16, device)
    with pytest.raises(ValueError, match="not trained for streaming"):
        on_gpu(of_bundle("conformer-streaming", causal=False), 1, torch.float16, device)
