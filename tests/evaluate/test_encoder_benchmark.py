from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from moulin.arrays import Floats, Ints
from moulin.errors import EngineError, OptionsError
from moulin.evaluate.encoder_benchmark import Latencies, benchmark_encoders
from moulin.evaluate.published_sizes import SIZES, random_transducer
from moulin.evaluate.results.encoder import EncoderRun


class Clock:
    """Moves only when a runner works."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Prepared:
    encode: Callable[[Floats, Ints], object]

    def prepare(self, x: Floats, x_lens: Ints) -> Callable[[], object]:
        return partial(self.encode, x, x_lens)


def test_runners_take_turns_and_one_that_fails_is_left_out() -> None:
    clock = Clock()
    calls: list[tuple[str, int]] = []

    def fast(x: Floats, x_lens: Ints) -> None:
        assert x.shape[1:] == (50, 80)
        assert x_lens.tolist() == [50] * len(x)
        calls.append(("fast", len(x)))
        clock.now += 0.010 * len(x)

    def slow(x: Floats, x_lens: Ints) -> None:  # noqa: ARG001
        calls.append(("slow", len(x)))
        if len(x) > 2:
            raise EngineError("out of memory\nand more")
        clock.now += 0.040

    found = list(
        benchmark_encoders(
            {"fast": Prepared(fast), "slow": Prepared(slow)},
            [2, 4],
            num_frames=50,
            feature_dim=80,
            rounds=2,
            seconds=0.05,
            clock=clock,
        )
    )
    (fast_two, slow_two), (fast_four, slow_four) = found
    assert [fast_two.median_ms, fast_two.qps] == pytest.approx([20, 100])
    assert [slow_two.median_ms, slow_two.qps] == pytest.approx([40, 50])
    assert (len(fast_two.seconds), len(slow_two.seconds)) == (6, 4)
    assert fast_four.median_ms == pytest.approx(40)
    assert slow_four == Latencies("slow", 4, failure="out of memory")
    assert slow_four.figures() == EncoderRun("slow", 4, failure="out of memory")
    assert fast_two.figures().qps == 100.0
    # Two calls to warm up and a turn of at least 0.05 s, twice; then no more of what has failed.
    assert calls[:7] == [("fast", 2)] * 2 + [("slow", 2)] * 2 + [("fast", 2)] * 3
    assert calls.count(("slow", 4)) == 1


def test_what_makes_no_sense() -> None:
    for batches, frames in (([0], 10), ([], 10), ([1], 0)):
        with pytest.raises(OptionsError, match="of at least 1"):
            next(benchmark_encoders({}, batches, num_frames=frames, feature_dim=80, rounds=1, seconds=0))


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_what_their_names_say(size: str) -> None:
    import torch

    with torch.device("meta"):
        transducer = random_transducer(size)
    millions = sum(parameter.numel() for parameter in transducer.parameters()) / 1e6
    assert millions == pytest.approx(float(size.rpartition("-")[2].removesuffix("m")), rel=0.02)


def test_the_same_weights_every_time_and_no_other_sizes() -> None:
    one, two = (random_transducer("zipformer2-23m").tensors() for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    with pytest.raises(OptionsError, match=r"There is no size 'huge'.*conformer-77m"):
        random_transducer("huge")
