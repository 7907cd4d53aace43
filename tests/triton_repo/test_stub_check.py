from __future__ import annotations

from typing import Any, Self

import numpy as np
import pytest

from moulin.errors import LaunchError
from moulin.triton_repo.stub_check import check_stub


class _Tensor:
    """The stub's tensor, which copies as a right one does."""

    def __init__(self, _name: str, values: Any) -> None:
        self.values = values

    def to_dlpack(self) -> Any:
        return self.values

    @classmethod
    def from_dlpack(cls, name: str, values: Any) -> Self:
        return cls(name, values.copy())

    def as_numpy(self) -> Any:
        return self.values


class _Blind(_Tensor):
    """A tensor as nvidia-pytriton's stub reads it with numpy 2: with the right shape and without its bytes."""

    @classmethod
    def from_dlpack(cls, name: str, values: Any) -> Self:
        return cls(name, np.zeros_like(values))


def test_a_stub_that_reads_arrays_passes() -> None:
    check_stub(_Tensor)


def test_a_stub_that_does_not_is_refused() -> None:
    with pytest.raises(LaunchError, match="every transcript would be empty") as caught:
        check_stub(_Blind)
    assert "numpy<2" in str(caught.value.hint)
