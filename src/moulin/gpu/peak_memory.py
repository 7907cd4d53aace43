"""The memory that a pass needs at most, from the shapes of its tensors, without running it on a card."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(run: Callable[[], object]) -> int:
    """The largest sum of the bytes of all tensors that `run` makes on PyTorch's device `meta` and still holds."""
    tally = _Tally()
    with tally:
        run()
    return tally.peak


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of all results on `meta`, a piece once however many views it has."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._held:
                self._held[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        gone = [key for key, (held, _) in self._held.items() if held.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            del self._held[key]
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return out


def _tensors(out: object) -> Iterable[Tensor]:
    if isinstance(out, Tensor):
        return [out] if out.device.type == "meta" else []
    return [tensor for one in out for tensor in _tensors(one)] if isinstance(out, tuple | list) else []
