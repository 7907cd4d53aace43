"""Triton's interpreter in less of its time.

It makes the type of each tensor anew for every operation, compares sizes as wrapped constants, and looks through the
whole language before every launch and every call of another function. Here types and sizes are remembered, and the
language is looked through once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import triton.language as tl
from triton.language import core, semantic
from triton.runtime import interpreter


def make_quick() -> None:
    """For this process. Of a release that is pinned: these are no public names."""
    # Checks of integer overflow, which a GPU does not make either, take a third of the time.
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    core.block_type.__init__ = _block_type(core.block_type.__init__)
    core.tensor.__init__ = _tensor
    interpreter._get_np_dtype = _by_name(interpreter._get_np_dtype)
    core.tuple.__eq__ = _equal(core.tuple.__eq__, core.constexpr(True))
    core.dtype.__eq__ = _equal(core.dtype.__eq__, True)
    semantic.TritonSemantic.broadcast_impl_value = _broadcast(semantic.TritonSemantic.broadcast_impl_value)
    interpreter._patch_lang = _once(interpreter._patch_lang)


def _block_type(plain: Callable[..., None]) -> Callable[..., None]:
    known: dict[Any, dict[str, Any]] = {}

    def remembered(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = [getattr(size, "value", size) for size in shape]
        key = (type(element_ty), element_ty.name, getattr(element_ty, "const", None), *sizes)
        if key not in known:
            plain(self, element_ty, shape)
            numel = core.constexpr(self.numel)
            shape_of_tensor = core.tuple([core.constexpr(size) for size in sizes])
            known[key] = {**vars(self), "of_tensor": (numel, shape_of_tensor), "sizes": tuple(sizes)}
        vars(self).update(known[key])

    return remembered


_SCALAR = core.constexpr(1), core.tuple([])


def _tensor(self: Any, handle: Any, type: Any) -> None:
    self.handle, self.type, self.dtype = handle, type, type.scalar
    self.numel, self.shape = type.of_tensor if type.is_block() else _SCALAR


def _by_name(plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[str, Any] = {}

    def remembered(dtype: Any) -> Any:
        if dtype.name not in known:
            known[dtype.name] = plain(dtype)
        return known[dtype.name]

    return remembered


def _equal(plain: Callable[[Any, Any], Any], true: Any) -> Callable[[Any, Any], Any]:
    return lambda self, other: true if self is other else plain(self, other)


def _broadcast(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Two blocks by the sizes that `plain` gave to such blocks before; `plain` for the first, and for all else."""
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[int, ...]] = {}

    def remembered(self: Any, lhs: Any, rhs: Any) -> Any:
        if not (lhs.type.is_block() and rhs.type.is_block()):
            return plain(self, lhs, rhs)
        sizes = lhs.type.sizes, rhs.type.sizes
        if sizes[0] == sizes[1]:
            return lhs, rhs
        if sizes not in known:
            both = plain(self, lhs, rhs)
            known[sizes] = both[0].type.sizes
            return both
        return _stretched(self, lhs, known[sizes]), _stretched(self, rhs, known[sizes])

    return remembered


def _stretched(self: Any, side: Any, sizes: tuple[int, ...]) -> Any:
    if side.type.sizes == sizes:
        return side
    return self.tensor(self.builder.create_broadcast(side.handle, sizes), core.block_type(side.type.scalar, [*sizes]))


def _once(plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The language stays that of the interpreter: nothing in a process with it compiles kernels."""
    patched: set[str] = set()

    def patch(function: Any) -> Any:
        seen = {one.__name__ for one in function.__globals__.values() if one is tl or one is core}
        if not seen <= patched:
            plain(function)
            patched.update(seen)
        return interpreter._LangPatchScope()

    return patch
