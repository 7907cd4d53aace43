"""Compilation of kernels before they are launched, beside each other, for this machine's card or for another.

Triton-lang compiles a kernel when it is first launched, and each launch waits. Here a pass runs on PyTorch's device
`meta`, whose tensors have shapes and no values: a launch asks for its kernel alone, and threads compile what was asked
for. Nothing of that needs a card. The compiled kernels are in Triton-lang's cache on disk, and in this process's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import KernelInterface

from moulin.start_progress import tell

META = torch.device("meta")
"""The device of tensors for passes that are only compiled."""

_SAY_EVERY_SEC = 5.0

Launch = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], None]
"""A function of kernel, grid, arguments and options."""

_instead: ContextVar[Launch | None] = ContextVar("instead", default=None)
"""What happens in this thread instead of a launch."""


def compiles_ahead() -> bool:
    """Whether this Triton-lang has what `compile_kernels` needs: 3.4 and newer have it."""
    return hasattr(triton, "AsyncCompileMode")


def compile_kernels(run: Callable[[], None], capability: int, *, threads: int) -> int:
    """Compile all kernels that `run`, a pass on `META`, launches, for cards of the compute `capability`, 90 for 9.0.

    Returns their number, those that were in the cache among them. Kernels of other threads run as always. Raises
    RuntimeError where one cannot be compiled.
    """
    # In a context of its own: Triton-lang's mode does not end where a kernel cannot be compiled.
    return copy_context().run(_compile, run, capability, threads)


def _compile(run: Callable[[], None], capability: int, threads: int) -> int:
    with (
        _target(capability),
        ThreadPoolExecutor(threads, thread_name_prefix="moulin-compile") as workers,
        triton.AsyncCompileMode(workers) as mode,
    ):
        with launching_nothing(_asker()):
            run()
        futures, said = list(mode.raw_futures), time.monotonic()
        for count, future in enumerate(as_completed(futures), start=1):
            future.result()
            if time.monotonic() - said > _SAY_EVERY_SEC:
                tell(f"compiled {count} of {len(futures)} GPU kernels")
                said = time.monotonic()
    return len(futures)


@contextmanager
def launching_nothing(instead: Launch = lambda *_: None) -> Iterator[None]:
    """Within it `instead` is called where this thread would launch a kernel."""
    _look_before_launches()
    before = _instead.set(instead)
    try:
        yield
    finally:
        _instead.reset(before)


@cache
def _look_before_launches() -> None:
    """Let all launches look at `_instead`. Never undone: threads may be within `launching_nothing` at any time."""
    launcher = KernelInterface.__getitem__

    def launch_or(kernel: Any, grid: Any) -> Callable[..., Any]:
        chosen = _instead.get()
        if chosen is None:
            return launcher(kernel, grid)  # type: ignore[no-any-return]
        return lambda *args, **options: chosen(kernel, grid, args, options)

    KernelInterface.__getitem__ = launch_or


def _asker() -> Launch:
    """Asks for kernels. To ask takes Triton-lang longer than a launch: layers of a kind ask once."""
    asked: set[Any] = set()

    def ask(kernel: Any, grid: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        which = id(kernel), _kind(args), _kind(tuple(options.items()))
        if which not in asked:
            asked.add(which)
            kernel.run(*args, grid=grid, warmup=True, **options)

    return ask


def _kind(value: Any) -> Any:
    """What decides about the kernel for an argument, and maybe more."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16
    if isinstance(value, tuple):
        return tuple(map(_kind, value))
    return type(value), value


@contextmanager
def _target(capability: int) -> Iterator[None]:
    """Within it Triton-lang compiles for `capability`. Other threads must launch nothing where this machine's card has
    another one, or there is no card."""
    try:
        before = driver.active
    except RuntimeError:  # no card
        before = None
    if before is None or before.get_current_target().arch != capability:
        driver.set_active(_Elsewhere(GPUTarget("cuda", capability, 32)))
    try:
        yield
    finally:
        driver.set_active(before)


class _Elsewhere:
    """The part of a Triton-lang driver that compilation asks, for a card that is not here."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target
