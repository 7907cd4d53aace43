"""Load generators in processes of their own: one process of Python sends fewer requests than a server takes.

None begins before all are ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from typing import Any, Protocol

from moulin.errors import LaunchError
from moulin.evaluate.run import Generate, Generated

READY_SEC = 120.0
"""The longest time for processes to start: each imports NumPy and gRPC, all at once."""


class Prepare(Protocol):
    """Prepares a generator; it is pickled, and called in the generator's process."""

    def __call__(self, number: int) -> Coroutine[Any, Any, Generate]:
        """Prepare the generator `number`."""


@asynccontextmanager
async def generator_processes(prepare: Prepare, count: int) -> AsyncIterator[Sequence[Generate]]:
    """`count` generators, ready. Raises what `prepare` does, and LaunchError for a process that ends or takes too long.

    The event loops' clocks are the machine's monotonic one, so that all processes agree about times.
    """
    context = get_context("spawn")
    processes, pipes = [], []
    try:
        for number in range(count):
            pipe, its = context.Pipe()
            process = context.Process(target=_generator, args=(its, prepare, number), daemon=True)
            process.start()
            its.close()  # so that the end of the process is the end of the pipe
            processes.append(process)
            pipes.append(pipe)
        try:
            async with asyncio.timeout(READY_SEC):
                await asyncio.gather(*(_reply(pipe) for pipe in pipes))
        except TimeoutError:
            raise LaunchError(f"Expected {count} load generators to be ready within {READY_SEC:g} s") from None

        def generate_by(pipe: Pipe) -> Generate:
            async def generate(begin: float) -> Generated:
                pipe.send(begin)
                generated: Generated = await _reply(pipe)
                return generated

            return generate

        yield [generate_by(pipe) for pipe in pipes]
    finally:
        for process, pipe in zip(processes, pipes, strict=True):
            process.terminate()
            process.join()
            pipe.close()


async def _reply(pipe: Pipe) -> Any:
    try:
        reply = await asyncio.to_thread(pipe.recv)
    except (EOFError, OSError):
        raise LaunchError("A load generator ended before it was done", hint="see what it printed") from None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _generator(pipe: Pipe, prepare: Prepare, number: int) -> None:
    """The main function of the process."""
    try:
        asyncio.run(_generate_when_told(pipe, prepare, number))
    except EOFError:
        pass  # the parent no longer waits for it
    except Exception as error:
        pipe.send(error)


async def _generate_when_told(pipe: Pipe, prepare: Prepare, number: int) -> None:
    generate = await prepare(number)
    pipe.send(None)
    begin: float = await asyncio.to_thread(pipe.recv)
    pipe.send(await generate(begin))
