from __future__ import annotations

import asyncio
import os
import time

import pytest

from moulin.errors import LaunchError, OptionsError
from moulin.evaluate.generator_processes import generator_processes
from moulin.evaluate.run import Generate, Generated
from moulin.evaluate.streaming_load import Load


async def count_up(number: int) -> Generate:
    """One that says who it is, and when it was told to begin."""

    async def generate(begin: float) -> Generated:
        return Generated(Load([], begin, time.monotonic(), 0.0, 0.0, []), number)

    return generate


async def refuse(number: int) -> Generate:
    raise OptionsError(f"Expected another number than {number}")


async def die(number: int) -> Generate:
    os._exit(number + 1)


async def die_at_work(number: int) -> Generate:  # noqa: ARG001
    async def generate(begin: float) -> Generated:  # noqa: ARG001
        os._exit(1)

    return generate


def test_none_begins_before_all_are_ready() -> None:
    async def run() -> list[Generated]:
        async with generator_processes(count_up, 3) as generates:
            begin = asyncio.get_running_loop().time()
            return await asyncio.gather(*(generate(begin) for generate in generates))

    generated = asyncio.run(run())
    assert [it.num_requests for it in generated] == [0, 1, 2]
    assert all(0 <= it.load.end_sec - it.load.first_sec < 60 for it in generated), "by the clock of all of them"


def test_what_a_generator_raises() -> None:
    async def run() -> None:
        async with generator_processes(refuse, 1):
            pass

    with pytest.raises(OptionsError, match="another number than 0"):
        asyncio.run(run())


def test_a_generator_that_ends() -> None:
    async def run_dead() -> None:
        async with generator_processes(die, 2):
            pass

    async def run_mortal() -> None:
        async with generator_processes(die_at_work, 1) as (generate,):
            await generate(0.0)

    for run in (run_dead, run_mortal):
        with pytest.raises(LaunchError, match="ended before it was done"):
            asyncio.run(run())
