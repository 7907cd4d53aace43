"""Kernels run on a GPU where there is one, and in Triton's interpreter on the CPU elsewhere (`tests/conftest.py`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moulin.gpu.kernels import convnext

if "TRITON_INTERPRET" in os.environ:
    from .quick_interpreter import make_quick

    make_quick()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore warnings of Triton's interpreter about its own code."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Inference with full float32 products, and the same random numbers for every test."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def large_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few large programs where whole networks are interpreted: a large block takes as long there as a small one. The
    tests in `kernels` have the card's sizes."""
    if "TRITON_INTERPRET" in os.environ and request.path.parent == Path(__file__).parent:
        monkeypatch.setattr(convnext, "PLACES_PER_PROGRAM", 1024)


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    dtype: torch.dtype = request.param
    return dtype


@pytest.fixture
def product_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of operands of kernels that multiply matrices."""
    if dtype == torch.bfloat16 and not torch.cuda.is_available():
        pytest.skip("Triton's interpreter takes the bits of bfloat16 matrices for integers; this runs on a GPU")
    return dtype
