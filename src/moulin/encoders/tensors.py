"""Loading of a checkpoint's tensors into modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set every parameter of `module` to the tensor of the same name; other tensors are ignored.

    Raises ValueError, which names the tensor, where one is missing or has another shape.
    """
    wanted = module.state_dict()
    for name, parameter in wanted.items():
        expect_shape(tensors, name, tuple(parameter.shape))
    module.load_state_dict({name: tensors[name] for name in wanted})
    module.eval().requires_grad_(False)


def expect_shape(tensors: Mapping[str, Tensor], name: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of the tensor `name`. Raises ValueError where it is not `shape`, in which None allows any size."""
    if name not in tensors:
        raise ValueError(f"the tensor '{name}' is missing")
    got = tuple(tensors[name].shape)
    if len(got) != len(shape) or any(want not in (None, size) for want, size in zip(shape, got, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"expected the tensor '{name}' to have the shape [{wanted}], got {list(got)}")
    return got


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, with the prefix removed."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Uninitialized(TorchFunctionMode):
    """Within it modules are made without the random numbers that training begins with, which take as long as reading a
    checkpoint: what they hold is whatever was in memory, until `load_tensors` sets all of it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)
