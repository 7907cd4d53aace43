"""`BatchedEncoder` over a runner that tells what it was asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.engine.encoding import BatchedEncoder


class Asked:
    """Gives every frame back; a call for 300 frames ends when it may."""

    num_workers, max_batch_frames = 2, 100

    def __init__(self) -> None:
        self.alone: dict[int, bool] = {}
        self.began, self.may_end = threading.Event(), threading.Event()

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        self.alone[x.shape[1]] = alone
        if x.shape[1] == 300:
            self.began.set()
            assert self.may_end.wait(60)
        return x, x_lens


def frames(count: int) -> Floats:
    return np.full((count, 4), count, np.float32)


def test_a_call_is_alone_where_no_other_is_under_way() -> None:
    runner = Asked()
    encode = BatchedEncoder(runner, channels=4)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(encode, [frames(300)])
        assert runner.began.wait(60)
        encode([frames(40)])
        runner.may_end.set()
        first.result()
    encode([frames(50)])
    encode([frames(60), frames(90)])
    assert runner.alone == {300: True, 40: False, 50: True, 60: False, 90: False}
    encode.close()
