from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _the_same_numbers_every_time() -> None:
    """New modules begin with random parameters."""
    torch.manual_seed(0)
